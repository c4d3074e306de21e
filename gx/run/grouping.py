"""How a level of a reduce is cut: as many items a group as the model's context holds, in order.

The bench counts the tokens of real prompts in its own tokenizer. A group's size is guessed in proportion from the last
count, then bisected, so that few prompts are counted whatever the items' lengths.
"""

from __future__ import annotations

from gx.core.errors import BenchError
from gx.core.ports import Worker
from gx.flow.graph import Grouping
from gx.flow.plan import Plan
from gx.flow.templates import TemplateFailure
from gx.run.prepare import Preparer

Span = tuple[int, int]

_GUESSES = 4
"""Counts by proportion before the search bisects."""
_TRIES = 3
"""How many benches may be lost under the counts of one level."""


async def cut(plan: Plan, preparer: Preparer, wanted: Grouping, worker: Worker) -> tuple[Span, ...]:
    """The [start, stop) spans of one level. An item too long for any group stands alone, and fails by itself.

    Above the first level a group holds at least two items, so that the tree always narrows. Items that the prompt can't
    be rendered for are one group, whose task fails with the reason. A bench that is lost meanwhile is nobody's turn:
    the level is cut again, `_TRIES` times in all.

    :raises GxError: if the model can't be used, or each bench is lost.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            return await _cut(plan, preparer, wanted, worker)
        except TemplateFailure:
            break
        except BenchError:
            if not tries_left:
                raise
    return ((0, len(wanted.below)),)


async def _cut(plan: Plan, preparer: Preparer, wanted: Grouping, worker: Worker) -> tuple[Span, ...]:
    step = plan.step(wanted.step)
    agent = plan.recipe.agents[step.agents[0]]
    model = preparer.model_of(agent)
    room = (await worker.describe(model)).context_tokens - agent.sampling.max_tokens
    count = len(wanted.below)
    least = 1 if wanted.level == 0 else 2

    async def tokens(start: int, stop: int) -> int:
        try:
            chat = preparer.chats(step, wanted.level, wanted.below, [(start, stop)])
        except TemplateFailure as error:
            if error.code != "template.too_long":
                raise
            return 2 * room + 2
        return (await worker.count(model, chat))[0]

    spans: list[Span] = []
    start, size = 0, count
    while start < count:
        low, high = min(least, count - start), count - start
        tries = 0
        while low < high:
            size = min(max(size, low + 1), high)
            needed = await tokens(start, start + size)
            low, high = (size, high) if needed <= room else (low, size - 1)
            tries += 1
            size = int(size * room / max(needed, 1)) if tries < _GUESSES else (low + high + 1) // 2
        spans.append((start, start + low))
        start, size = start + low, low
    if wanted.level > 0 and len(spans) > 1 and spans[-1][1] - spans[-1][0] == 1:
        (first, _), (_, last) = spans[-2], spans[-1]
        spans[-2:] = [(first, last)]
    return tuple(spans) or ((0, 0),)
