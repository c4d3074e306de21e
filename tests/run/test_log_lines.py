"""The lines that DuckDB makes of events say what the log holds, whatever stands in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gx.core import event as e
from gx.run.log import EventLog
from gx.run.log import lines as lines_module
from gx.run.log.lines import pages_of

NAMES = ("source", "type", "run", "task", "attempt", "worker")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventLog]:
    """A log that grows from text to text."""
    with EventLog.open(tmp_path_factory.mktemp("log")) as log:
        yield log


def lines(log: EventLog, *, run: str | None = None, kind: str | None = None, after: int = -1) -> list[bytes]:
    return b"".join(pages_of(log, run=run, kind=kind, after=after, last=log.last_seq)).splitlines()


def told(log: EventLog, after: int) -> list[dict[str, object]]:
    """The events after a `seq` as they stand in the log, without what is NULL."""
    found = []
    sql = f"SELECT seq, ts, data, {', '.join(NAMES)} FROM events WHERE seq > ? ORDER BY seq"
    for seq, ts, data, *named in log.file.ask(sql, [after]):
        whole = datetime.fromtimestamp(ts // 10**6, UTC)
        envelope = {"seq": seq, "time": f"{whole:%Y-%m-%dT%H:%M:%S}.{ts % 10**6:06}Z"}
        values = zip(NAMES, named, strict=True)
        found.append(envelope | {n: v for n, v in values if v is not None} | {"data": json.loads(data)})
    return found


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example('","data":{}')
@example("\x00\x01\x1f\x7f\x85\u2028\ufeff\ufffe\U0010ffff 😀 ' \\ \" \n\r\t {} null %s $1")
@settings(max_examples=50, deadline=None)
def test_a_line_says_what_the_log_holds(shared: EventLog, text: str) -> None:
    before = shared.last_seq
    bodies: list[e.Body] = [
        e.RunCreated(run=text, name=text, fingerprint=text, recipe=text, params=text, by=text),
        e.AttemptLost(run=text, task=text, attempt=2**31 - 1, worker=text, reason=text),
        e.NodeStarted(epoch=1, pid=7, host=text),
    ]
    shared.append_sync(bodies, [], source="node:1")
    assert [json.loads(line) for line in lines(shared, after=before)] == told(shared, before)
    assert [json.loads(line)["run"] for line in lines(shared, run=text, after=before)] == [text, text]


def test_pages_leave_nothing_out_and_begin_where_they_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "PAGE", 3)
    with EventLog.open(tmp_path) as log:
        log.append_sync([e.NodeStarted(epoch=n, pid=7) for n in range(11)], [], source="node:1")
        assert [json.loads(line)["seq"] for line in lines(log, after=4)] == list(range(5, 12))
        assert [json.loads(line)["type"] for line in lines(log, kind="log.*")] == ["log.opened"]
        assert lines(log, kind="node.started", run="r") == lines(log, after=99) == []
