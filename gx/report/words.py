"""Numbers as a report says them."""

from __future__ import annotations

from datetime import UTC, datetime


def number(value: float) -> str:
    """A count: `12,345`."""
    return f"{value:,.0f}"


def amount(value: float) -> str:
    """Three digits that count: `0.0042`, `1.25`, `38.1`, `12,345`."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def times(value: int, what: str) -> str:
    """How often something happened: `never resumed`, `resumed once`, `resumed 12 times`."""
    return f"never {what}" if not value else f"{what} once" if value == 1 else f"{what} {number(value)} times"


def seconds(value: float) -> str:
    """A time with its unit: `0.42 s`, `12.3 s`, `1,234 s`."""
    return f"{amount(value)} s"


def duration(value: float) -> str:
    """A longer time, in two units at most: `12.3 s`, `4 min 12 s`, `3 h 5 min`, `2 d 3 h`."""
    if value < 120:
        return seconds(value)
    for limit, large, small, name, rest_name in _UNITS:
        if value < limit:
            count, rest = divmod(round(value / small), large // small)
            return f"{count:,} {name}" + (f" {rest} {rest_name}" if rest else "")
    raise AssertionError("the last limit has no end")


_UNITS = ((7200.0, 60, 1, "min", "s"), (172800.0, 3600, 60, "h", "min"), (float("inf"), 86400, 3600, "d", "h"))
"""Up to so many seconds: the larger and the smaller unit, in seconds, and their names."""


def instant(at: int) -> str:
    """An instant in µs since 1970: `2026-11-21 03:14:15 UTC`."""
    return datetime.fromtimestamp(at / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
