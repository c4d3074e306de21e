"""Prompts that are longer than a model's context: what of them goes in, and how that is told."""
