"""The bench: the work, done beside the weights, on a laptop or in a container."""
