"""The engine: tokens in, tokens out, on llama.cpp. Loaded only in the bench's process."""
