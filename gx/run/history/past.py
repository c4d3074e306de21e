"""A run as the log has it, asked in pages: which tasks of a step ended and how, and what they made.

Whoever can answer SQL is asked: a node or a file. Each page folds the events of its own tasks, so that the rules of
`gx.core.projection` hold here too, and memory doesn't grow with the run. A page sees the log as of `Past.seq`: pages
that are asked one after the other, while the run goes on, fit together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

from gx.core import event as e
from gx.core.errors import NotFound, UsageError
from gx.core.event import Event, Ref
from gx.core.message import Value
from gx.core.projection import fold
from gx.core.recipe import Recipe
from gx.core.view import TaskState, View
from gx.flow.parse import parse_recipe

Ask = Callable[[str], list[dict[str, Any]]]
"""A statement of SQL → its rows."""

_ENDS = ("task.succeeded", "task.failed", "task.cancelled", "task.skipped")
_MOVES = ("task.queued", "attempt.failed", "attempt.lost", "task.retried", *_ENDS)
"""The events that say how a task ended and what it cost."""
_ASKED = 1000
"""Digests in one question."""


class Past(Value, frozen=True, kw_only=True):
    """A run as of the event `seq`. `level` is the top of its output step's tree, where that step is a reduce."""

    run: str
    status: str
    seq: int
    created: e.RunCreated
    recipe: Recipe
    level: int | None = None


class Place(NamedTuple):
    """Where a page ends: the `index` of its last row, and the `seq` that queued it."""

    row: int = -1
    seq: int = -1


def find_run(ask: Ask, start: str) -> str:
    """The whole id of the run that starts so. :raises NotFound: if none does. :raises UsageError: if several do."""
    named = f"SELECT run FROM events WHERE type = 'run.created' AND starts_with(run, {text(start)})"
    found = [row["run"] for row in ask(f"{named} ORDER BY length(run), run LIMIT 6")]
    if not found:
        raise NotFound(f"there is no run {start}", hint="`gx runs` lists them")
    if len(found) > 1 and found[0] != start:
        names = ", ".join(found[:5]) + " …" * (len(found) > 5)
        raise UsageError(f"{start} is the start of several runs: {names}", hint="give more of it")
    return str(found[0])


def look_at(ask: Ask, start: str) -> Past:
    """The run whose id starts so, as it stands. :raises NotFound: if there is none, or its recipe was erased."""
    run = find_run(ask, start)
    (row,) = ask(f"SELECT status, (SELECT max(seq) FROM events) AS seq FROM runs WHERE run = {text(run)}")
    (event,) = events(ask, f"type = 'run.created' AND run = {text(run)}")
    created = event.body
    assert isinstance(created, e.RunCreated)
    content = contents(ask, [created.recipe]).get(created.recipe)
    if content is None:
        raise NotFound(f"the recipe of {run} was erased, and with it what its results are")
    recipe = parse_recipe(content.decode(), file=created.file)
    past = Past(run=run, status=row["status"], seq=row["seq"], created=created, recipe=recipe)
    if recipe.step(recipe.output).reduce is None:
        return past
    return Past(**{name: getattr(past, name) for name in past.__struct_fields__} | {"level": _top(ask, past)})


def _top(ask: Ask, past: Past) -> int:
    """The level of the output step's tree that speaks for it; one that there isn't while the tree still grows."""
    where = f"type = 'step.grouped' AND run = {text(past.run)} AND data->>'$.step' = {text(past.recipe.output)}"
    levels = [event.body for event in events(ask, f"{where} AND seq <= {past.seq}")]
    top = levels[-1] if levels else None
    is_there = isinstance(top, e.StepGrouped) and (len(top.spans) <= 1 or past.status == "finished")
    return top.level if is_there and isinstance(top, e.StepGrouped) else -1


def ended_after(ask: Ask, past: Past, after: Place, limit: int) -> tuple[list[TaskState], Place | None]:
    """The tasks of the output step that ended, in the order of their rows: of the next `limit` tasks after a place.

    The place is that of the last one; `None` says that there are no more.
    """
    only = f"run = {text(past.run)} AND seq <= {past.seq}"
    at = "coalesce(CAST(data->>'$.index' AS BIGINT), 0)"
    level = "" if past.level is None else f"AND coalesce(CAST(data->>'$.level' AS INTEGER), 0) = {past.level}"
    page = f"""SELECT task FROM events WHERE {only} AND type = 'task.queued'
        AND data->>'$.step' = {text(past.recipe.output)} {level}
        AND ({at} > {after.row} OR ({at} = {after.row} AND seq > {after.seq})) ORDER BY {at}, seq LIMIT {limit}"""
    view, queued = View(), dict[str, Place]()
    fold(view, Event(seq=0, ts=0, source="", body=past.created))
    for event in events(ask, f"{only} AND type IN {texts(_MOVES)} AND task IN ({page})"):
        fold(view, event)
        if isinstance(event.body, e.TaskQueued):
            queued.setdefault(event.body.task, Place(event.body.index, event.seq))
    tasks = sorted(view.runs[past.run].tasks.values(), key=lambda task: queued[task.id])
    last = queued[tasks[-1].id] if len(tasks) == limit else None
    return [task for task in tasks if task.status.is_terminal], last


def events(ask: Ask, where: str) -> list[Event]:
    """The events for which the condition holds, in order."""
    rows = ask(f"SELECT seq, ts, source, data::VARCHAR AS body FROM events WHERE {where} ORDER BY seq")
    return [Event(seq=r["seq"], ts=r["ts"], source=r["source"], body=e.decode_body(r["body"])) for r in rows]


def sizes(ask: Ask, refs: Collection[Ref]) -> dict[Ref, int]:
    """The bytes of each content that is there."""
    found = dict[Ref, int]()
    for some in _in_turn(refs):
        sized = f"SELECT digest, any_value(size) AS size FROM contents WHERE digest IN {texts(some)} GROUP BY digest"
        found |= {row["digest"]: row["size"] for row in ask(sized)}
    return found


def contents(ask: Ask, refs: Collection[Ref]) -> dict[Ref, bytes]:
    """The content of those digests; what was erased is absent. They are held all at once: see `sizes`."""
    found = dict[Ref, bytes]()
    for some in _in_turn(refs):
        named = f"SELECT rowid FROM contents WHERE digest IN {texts(some)}"  # reads no bytes but these
        rows = ask(f"SELECT digest, bytes, seq FROM contents WHERE rowid IN ({named})")
        found |= {row["digest"]: bytes.fromhex(row["bytes"]) for row in rows if row["bytes"] is not None}
        large = {row["digest"]: row["seq"] for row in rows if row["bytes"] is None}
        found |= {digest: _joined(ask, digest, seq) for digest, seq in large.items()}
    return found


def _joined(ask: Ask, digest: Ref, seq: int) -> bytes:
    named = f"SELECT rowid FROM parts WHERE digest = {text(digest)} AND seq = {seq}"
    rows = ask(f"SELECT bytes FROM parts WHERE rowid IN ({named}) ORDER BY part")
    return b"".join(bytes.fromhex(row["bytes"]) for row in rows)


def _in_turn(refs: Collection[Ref]) -> Iterator[list[Ref]]:
    once = list(dict.fromkeys(refs))
    for first in range(0, len(once), _ASKED):
        yield once[first : first + _ASKED]


def text(value: str) -> str:
    """A text as SQL has it."""
    return "'" + value.replace("'", "''") + "'"


def texts(values: Iterable[str]) -> str:
    """Texts as SQL has them after IN."""
    return "(" + ", ".join(map(text, values)) + ")"
