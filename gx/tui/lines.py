"""Events as the node streams them, decoded just as far as the monitor reads them.

A line keeps its bytes, so that what the fold skips can be shown whole. The few kinds that are told in words are decoded
into the core's own bodies, by `body_of`.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gx.core import event as e


class Brief(msgspec.Struct, gc=False):
    """Of all bodies, the fields that the monitor counts by. Which of them a body has depends on its type."""

    step: str = ""
    index: int = 0
    id: str = ""
    code: str = ""
    message: str = ""
    reason: str = ""
    cached: str | None = None
    tok_in: int = 0
    tok_out: int = 0
    ms: float | None = None
    tasks: int = 0


class Line(msgspec.Struct, gc=False):
    """One event: `time` is ISO 8601 in UTC, `data` the part of its body that is counted. `raw` is the line itself."""

    seq: int
    time: str
    type: str
    run: str | None = None
    task: str | None = None
    attempt: int = 0
    worker: str | None = None
    data: Brief = msgspec.field(default_factory=Brief)
    raw: bytes = b""


class _Whole(msgspec.Struct):
    data: msgspec.Raw


_LINE = msgspec.json.Decoder(Line)
_WHOLE = msgspec.json.Decoder(_Whole)


def decode(lines: Iterable[bytes]) -> list[Line]:
    """The events of these lines. :raises msgspec.MsgspecError: if one is none."""
    found = []
    for raw in lines:
        line = _LINE.decode(raw)
        line.raw = raw
        found.append(line)
    return found


def body_of(line: Line) -> e.Body:
    """The whole body of an event. :raises msgspec.MsgspecError: if this gx doesn't know its type."""
    return e.decode_body(bytes(_WHOLE.decode(line.raw).data))


def second_of(line: Line) -> float:
    """Wall-clock seconds of an event: its day counts, so that midnight is no fall back."""
    t = line.time
    days = _days(t[:10])
    return days * 86400 + int(t[11:13]) * 3600 + int(t[14:16]) * 60 + float(t[17:-1])


_DAYS: dict[str, int] = {}


def _days(date: str) -> int:
    """Days since 1970 of a date, looked up for the few that a log has."""
    if (found := _DAYS.get(date)) is None:
        from datetime import date as day

        found = _DAYS[date] = day.fromisoformat(date).toordinal() - 719163
    return found
