"""Memories in SQLite: kept, searched and compacted. A projection: whatever is in it can be made again from the log."""
