"""Two runs side by side: row by row, then what each took.

Rows belong together by row id, step and matrix. Results are compared by their digests, and only those that differ are
read: two runs of any length take some hundred bytes a row. What an answer is made of is compared field by field.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec

from gx.core.event import AFTERWARDS, Ref
from gx.core.ids import canonical
from gx.core.message import Value
from gx.core.task import Status
from gx.core.view import TaskState
from gx.run.history import past
from gx.run.history.past import Ask, Past, Place
from gx.run.history.spent import containers

PAGE = 5000
CHUNK = 500
"""Answers that differ and are read at a time."""

Verdict = Literal["same", "changed", "only in left", "only in right"]
_Name = tuple[str, str, bytes]


class Brief(Value, frozen=True, kw_only=True):
    """A row's end, as far as it is compared."""

    id: str
    step: str
    matrix: dict[str, Any] | None
    status: Status
    output: Ref | None
    error: tuple[str, str] | None


class Change(Value, frozen=True, kw_only=True):
    """A field that differs, such as `output.category`; `None` where that side has none."""

    field: str
    left: Any = None
    right: Any = None


class Row(Value, frozen=True, kw_only=True):
    """A row of either run or of both."""

    id: str
    step: str
    matrix: dict[str, Any] | None
    verdict: Verdict
    changes: tuple[Change, ...] = ()


class Totals(Value, frozen=True, kw_only=True):
    """What a run took, over all its steps. `seconds` is from its beginning to its last event."""

    run: str
    status: str
    tasks: int
    failed: int
    from_log: int
    tokens_in: int
    tokens_out: int
    seconds: float
    usd: float


Pair = tuple[Brief | None, Brief | None]
"""Rows that belong together, left and right; one may not be there."""


def briefs_after(ask: Ask, run: Past, after: Place) -> tuple[list[Brief], Place | None]:
    """The next rows of a run, and where they end; `None` if that was all."""
    tasks, last = past.ended_after(ask, run, after, PAGE)
    return [_brief(task) for task in tasks], last


def _brief(task: TaskState) -> Brief:
    return Brief(
        id=task.row_id,
        step=sys.intern(task.step),  # one text for all rows
        matrix=task.matrix,
        status=task.status,
        output=task.output,
        error=task.error,
    )


def pairs_of(left: list[Brief], right: list[Brief]) -> Iterator[Pair]:
    """Rows that belong together, in the order of the left run, then those that only the right one has."""
    others = {_name(brief): brief for brief in right}
    for brief in left:
        yield brief, others.pop(_name(brief), None)
    for brief in right:
        if _name(brief) in others:
            yield None, brief


def _name(brief: Brief) -> _Name:
    return brief.id, brief.step, canonical(brief.matrix) if brief.matrix else b""


def chunks_of(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """The pairs, as many at a time as have a chunk of answers to be read."""
    chunk: list[Pair] = []
    wanted = 0
    for pair in pairs:
        chunk.append(pair)
        wanted += len(refs_of(*pair))
        if wanted >= CHUNK:
            yield chunk
            chunk, wanted = [], 0
    if chunk:
        yield chunk


def is_same(left: Brief | None, right: Brief | None) -> bool:
    """Whether both ended alike: the same answer to the byte, or the same kind of failure."""
    if left is None or right is None or left.status is not right.status:
        return False
    if left.output is None and right.output is None:
        return (left.error or ("",))[0] == (right.error or ("",))[0]
    return left.output == right.output


def refs_of(left: Brief | None, right: Brief | None) -> list[Ref]:
    """What must be read to say how they differ."""
    if left is None or right is None or is_same(left, right):
        return []
    return [ref for ref in (left.output, right.output) if ref is not None]


def compare(left: Brief | None, right: Brief | None, content: dict[Ref, bytes]) -> Row:
    """How two rows differ; one of them is there. `content` has what `refs_of` named, as far as it isn't erased."""
    brief = left or right
    assert brief is not None
    verdict: Verdict = "only in right" if left is None else "only in left"
    changes: tuple[Change, ...] = ()
    if left is not None and right is not None:
        verdict = "same" if is_same(left, right) else "changed"
        changes = () if verdict == "same" else tuple(_changes(_shown(left, content), _shown(right, content)))
    return Row(id=brief.id, step=brief.step, matrix=brief.matrix, verdict=verdict, changes=changes)


def _shown(brief: Brief, content: dict[Ref, bytes]) -> dict[str, Any]:
    """A row's end as fields; those of an answer that is an object are its own."""
    if brief.output is None:
        code, message = brief.error or ("", "")
        return {"status": brief.status.value, "error": f"{code}: {message}"}
    answer = msgspec.json.decode(content[brief.output]) if brief.output in content else "(erased)"
    own = (
        {f"output.{name}": value for name, value in answer.items()} if isinstance(answer, dict) else {"output": answer}
    )
    return {"status": brief.status.value, **own}


def _changes(left: dict[str, Any], right: dict[str, Any]) -> Iterator[Change]:
    for name in dict.fromkeys([*left, *right]):
        if name not in left or name not in right or left[name] != right[name]:
            yield Change(field=name, left=left.get(name), right=right.get(name))


def totals_of(ask: Ask, run: Past) -> Totals:
    """What a run took, as of the `seq` that it was looked at; its dollars are those of `gx spend`, as of now."""
    named = past.text(run.run)
    (row,) = ask(
        f"""SELECT count(*) FILTER (type = 'task.queued') AS tasks, count(*) FILTER (type = 'task.failed') AS failed,
            count(*) FILTER (type = 'task.succeeded' AND data->>'$.cached' IS NOT NULL) AS from_log,
            coalesce(sum(tok_in), 0)::BIGINT AS tokens_in, coalesce(sum(tok_out), 0)::BIGINT AS tokens_out,
            (max(ts) - min(ts)) / 1e6 AS seconds
        FROM events WHERE run = {named} AND seq <= {run.seq} AND type NOT IN {AFTERWARDS}"""
    )
    usd = sum((one.usd for one in containers(ask, run.run) if not one.is_rehearsal), 0.0)
    return Totals(run=run.run, status=run.status, usd=usd, **row)
