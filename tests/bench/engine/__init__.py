"""The engine beside llama-server, llama-cpp-python and llama-batched-bench, at equal work."""
