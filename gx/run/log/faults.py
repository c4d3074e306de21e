"""DuckDB's errors in our words, with what to do. It knows what DuckDB says, and changes nothing."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from gx.core.errors import LogError

_FULL = re.compile(rf"no space left|file too large|quota|{os.strerror(errno.ENOSPC)}", re.IGNORECASE)
_LOCKED = re.compile(r"could not set lock|conflicting lock", re.IGNORECASE)
_OPEN_HERE = re.compile(r"configuration has been locked|different configuration|already attached", re.IGNORECASE)
_READ_ONLY = re.compile(r"permission denied|read-only file system|not permitted", re.IGNORECASE)
_DAMAGED = re.compile(r"checksum|corrupt|wal|invalid|not a valid|serializ", re.IGNORECASE)


def explain(error: Exception, path: Path, *, writing: bool = False) -> LogError:
    """DuckDB's error about the file at `path` as ours; `writing` says that nothing was read when it came."""
    text = str(error).partition("\n")[0]
    if _LOCKED.search(text):
        return LogError(f"{path} is in use by another process", hint="let it end, or stop it", code="log.locked")
    if _OPEN_HERE.search(text):
        return LogError(f"{path} is open in this process already", hint="close it first", code="log.locked")
    if _FULL.search(text):
        return LogError(f"the disk is full: {text}", hint="make room; nothing recorded is lost", code="log.full")
    if _READ_ONLY.search(text):
        return LogError(f"{path} can't be written: {text}", hint="see the folder's permissions", code="log.read_only")
    if writing:
        return LogError(f"the log can't be written: {text}", hint="nothing recorded is lost", code="log.write")
    if _DAMAGED.search(text):
        hint = f"`gx repair` copies {path.parent} aside and keeps all that can be read"
        return LogError(f"{path} is damaged: {text}", hint=hint, code="log.damaged")
    return LogError(f"{path} can't be read: {text}", code="log.read")
