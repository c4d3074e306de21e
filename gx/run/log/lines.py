"""Events as lines of JSON, in pages, whoever asks.

DuckDB writes the lines: a page comes as one text, so that who follows the log takes no time from those who write it.
"""

from __future__ import annotations

from collections.abc import Iterator

from gx.run.log.eventlog import EventLog

PAGE = 10_000
_NAMES = ("source", "type", "run", "task", "attempt", "worker")
"""What stands in a line beside `seq`, `time` and `data`, where it is not NULL; the names are those of the columns."""


def _line() -> str:
    """One event as JSON, in SQL. Its envelope's names are those of CloudEvents where it has one."""
    time = """strftime(make_timestamp(ts), '%Y-%m-%dT%H:%M:%S.%f')"""
    named = ", ".join(f"""',"{name}":' || to_json({name})::VARCHAR""" for name in _NAMES)  # `concat` leaves out NULLs
    return f"""concat('{{"seq":', seq, ',"time":"', {time}, 'Z"', {named}, ',"data":', data, '}}')"""


_PAGE = f"""SELECT string_agg({_line()}, chr(10) ORDER BY seq) FROM events
    WHERE seq BETWEEN $1 AND $2 AND ($3 IS NULL OR run = $3) AND ($4 IS NULL OR type GLOB $4)"""


def pages_of(log: EventLog, *, run: str | None, kind: str | None, after: int, last: int) -> Iterator[bytes]:
    """The lines of the events that fit, after the `seq` `after` up to `last`, many at a time; no page is empty."""
    for first in range(max(after + 1, 0), last + 1, PAGE):
        for (page,) in log.file.ask(_PAGE, [first, min(last, first + PAGE - 1), run, kind]):
            if page is not None:
                yield page.encode() + b"\n"
