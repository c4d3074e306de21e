"""The rented bench: the same `edge` code, on somebody else's machine."""
