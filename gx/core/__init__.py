"""Values that every layer shares: standard library and msgspec only; no I/O, no clock, no randomness."""
