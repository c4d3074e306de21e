"""How a child process ended, in words. Pure."""

from __future__ import annotations

import signal


def why(status: int, last_words: str) -> str:
    """Why it failed: the last line that it said, or how it was ended where it could say nothing of that."""
    told = last_words.strip().splitlines()
    return told[-1] if told and 0 < status < 128 else in_words(status, last_words)


def in_words(status: int, last_words: str) -> str:
    """How a process ended. `status` is negative for a signal, as subprocess has it, or 128 + n, as shells do."""
    number = -status if status < 0 else status - 128 if status > 128 else 0
    try:
        name = signal.Signals(number).name if number else ""
    except ValueError:
        name = ""
    told = [line.strip() for line in last_words.splitlines() if line.strip()]
    if not name:
        return f"exit status {status}" + (f": {told[-1]}" if told and status else "")
    if name == "SIGKILL":
        name += ": out of memory?"
    if name == "SIGABRT":
        found = [line for line in told if "GGML_ASSERT" in line or "GGML_ABORT" in line]
        name += f": {found[-1]}" if found else ": a GGML assertion?"
    return f"killed by signal {number} ({name})" if status < 0 else f"exit status {status} ({name})"
