"""gx: fleets of LLM agents on your own machine. This package imports nothing, so that `gx --help` stays fast."""

__version__ = "0.1.0"
