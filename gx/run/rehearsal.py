"""A sample of the tasks of a run, rendered by the code that a run uses, and nothing of it kept.

An input is read once, to its end, and only the sample stays in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from gx.core import event as e
from gx.core.message import Message, Turn, Value
from gx.core.projection import fold
from gx.core.view import RunState, View
from gx.flow import graph
from gx.flow.plan import Plan, StepPlan
from gx.run.contents import Contents
from gx.run.inputs import Row, take
from gx.run.prepare import Preparer

SAMPLE = 200
CHARS_PER_TOKEN = 3.6
"""English prose in the vocabularies of today's small models; code and other languages take more tokens."""

T = TypeVar("T")


class Survey(Value, frozen=True, kw_only=True):
    """An input that was read: its rows, how many can't be used, and a sample of the others, the first in it."""

    rows: int = 0
    unusable: int = 0
    sample: tuple[Row, ...] = ()


def survey(rows: Iterable[Row]) -> Survey:
    """Read every row, and keep `SAMPLE` of them, drawn with equal chances. :raises InputError: as the input does."""
    rows_read = unusable = 0
    first: list[Row] = []

    def usable() -> Iterator[Row]:
        nonlocal rows_read, unusable
        for row in rows:
            rows_read += 1
            if row.error is not None:
                unusable += 1
                continue
            if not first:
                first.append(row)
            yield row

    drawn = list(take(usable(), sample=SAMPLE))
    if first and drawn[0].index != first[0].index:
        drawn[0] = first[0]
    return Survey(rows=rows_read, unusable=unusable, sample=tuple(drawn))


def tokens_of(messages: Sequence[Message]) -> float:
    """About how many tokens a chat has, its template's own left out."""
    return sum(len(message.content) for message in messages) / CHARS_PER_TOKEN


class Rehearsal:
    """A sample of a step's tasks, rendered as a run would: their turns, how many were `tried`, the first failure.

    `private` says of those that may not leave this machine why, in words.
    """

    def __init__(self, plan: Plan, step: StepPlan, rows: Sequence[Row], models: dict[str, str]) -> None:
        created = e.RunCreated(run="dry-run", name=plan.recipe.name, fingerprint="", recipe="", params="")
        view = fold(View(), e.Event(seq=0, ts=0, source="dry-run", body=created))
        contents = Contents(lambda refs: {}, lambda refs: {}, 1 << 62)  # the sample is in memory as it is
        run = view.runs["dry-run"]
        read = sorted((_read(row, contents) for row in rows), key=lambda row: row.index)
        for body in (e.InputsRead(run=run.id, rows=tuple(read)), e.InputsEnded(run=run.id, rows=len(read))):
            fold(view, e.Event(seq=view.seq + 1, ts=0, source="dry-run", body=body))
        ids = [self._queue(view, run, step, row, combo, contents) for row, combo in _sampled(step, rows)]
        everything = {name: models.get(name, "") for name in plan.recipe.models}
        made = Preparer(plan, run, contents, everything, lambda keys: {}).prepare(ids)
        self.turns: list[Turn] = [made.turns[one] for one in ids if one in made.turns]
        self.private = [made.private[one] for one in ids if one in made.private]
        self.tried = len(ids)
        self._searches = any(step.step.recall(plan.recipe.agents[name]) is not None for name in step.agents)
        failed = (body.message for body in made.bodies if isinstance(body, e.TaskFailed))
        self.problem = next(failed, "") if ids else "there is no row that can be used"

    def tokens_in(self) -> float:
        """Of one task, on average."""
        return sum(tokens_of(turn.messages) for turn in self.turns) / max(1, len(self.turns))

    def basis(self) -> str:
        more = ", without what the memory will give" if self._searches else ""
        return f"{len(self.turns):,} rendered prompts at {CHARS_PER_TOKEN} characters a token{more}"

    @staticmethod
    def _queue(
        view: View, run: RunState, step: StepPlan, row: Row | None, combo: dict[str, Any], contents: Contents
    ) -> str:
        origin = graph.of_nothing(step)
        if row is not None:
            origin = graph.of_row(_read(row, contents))
        queued = graph.queued(run.id, step, origin, combo)
        fold(view, e.Event(seq=view.seq + 1, ts=0, source="dry-run", body=queued))
        return queued.task


def _read(row: Row, contents: Contents) -> e.InputRow:
    item = contents.put(row.value or b"null").digest
    return e.InputRow(index=row.index, id=row.id or "", item=item, is_batch=row.is_batch)


def _sampled(step: StepPlan, rows: Sequence[Row]) -> list[tuple[Row | None, dict[str, Any]]]:
    combos = _spread(step.combos, SAMPLE)
    chosen: Sequence[Row | None] = [None] if step.step.for_each is None else _spread(rows, SAMPLE // len(combos))
    return [(row, combo) for row in chosen for combo in combos]


def _spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items (one at least), evenly, the first in it."""
    count = min(len(items), max(1, most))
    return [items[n * len(items) // count] for n in range(count)]
