"""Figures in words, for whoever tells a person."""

from __future__ import annotations

from math import isfinite


def counted(number: int, thing: str, things: str = "") -> str:
    """`1 task`, `1,200 tasks`; `things` is a plural that isn't made with an s."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def duration(seconds: float) -> str:
    """Seconds as people say them, in two units at most and without zeros: `42 s`, `3 min 20 s`, `30 min`, `2 d 5 h`.

    A time without end is `for ever`.
    """
    if not isfinite(seconds):
        return "for ever"
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole, 60, "min", 1, "s")
    return _two(whole, 3600, "h", 60, "min") if whole < 172_800 else _two(whole, 86_400, "d", 3600, "h")


def _two(whole: int, large_s: int, large: str, small_s: int, small: str) -> str:
    count, rest = whole // large_s, whole % large_s // small_s
    return f"{count:,} {large}" + (f" {rest} {small}" if rest else "")
