"""Events as lines of JSON, in pages, whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from gx.run.log.eventlog import EventLog

PAGE = 10_000


def pages_of(log: EventLog, *, run: str | None, kind: str | None, after: int, last: int) -> Iterator[bytes]:
    """The lines of the events that fit, after the `seq` `after` up to `last`, many at a time; no page is empty.

    The envelope's names are those of CloudEvents where it has one.
    """
    sql = """SELECT seq, ts, source, type, run, task, attempt, worker, data FROM events
        WHERE seq BETWEEN $1 AND $2 AND ($3 IS NULL OR run = $3) AND ($4 IS NULL OR type GLOB $4) ORDER BY seq"""
    for first in range(max(after + 1, 0), last + 1, PAGE):
        page = []
        for seq, ts, *rest, data in log.file.ask(sql, [first, min(last, first + PAGE - 1), run, kind]):
            named = zip(("source", "type", "run", "task", "attempt", "worker"), rest, strict=True)
            when = datetime.fromtimestamp(ts / 1e6, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
            line = {"seq": seq, "time": when, **{name: value for name, value in named if value is not None}}
            page.append(msgspec.json.encode({**line, "data": msgspec.Raw(data.encode())}))
        if page:
            yield b"\n".join(page) + b"\n"
