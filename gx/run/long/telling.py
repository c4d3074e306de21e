"""What was left out of prompts, in words: of one prompt, and of all of a step for who follows its run. Pure.

Nothing of what a prompt says is told, only names and figures.
"""

from __future__ import annotations

from gx.core.event import Kept, Shortened
from gx.core.view import LeftOut, RunState
from gx.flow.long import is_part, owner
from gx.run.long.texts import named


def words_of(shortened: Shortened) -> str:
    """What was left out of one prompt: `3 of 41 parts of item.text went in (7,610 of 52,118 tokens)`."""
    found = [_of_text(one) for one in shortened.texts]
    if shortened.dropped:
        found.append(f"its {_turns(shortened.dropped)} of {shortened.messages:,} messages were left out")
    tokens = f"{shortened.tokens_kept:,} of {shortened.tokens:,} tokens, for a context of {shortened.context_tokens:,}"
    return f"longer than the context: {'; '.join(found)} ({tokens}){''.join(f' ({one})' for one in shortened.without)}"


def notes(run: RunState) -> list[str]:
    """Which steps of a run have prompts that are longer than the context, as soon as there is one."""
    found = [
        f"step {owner(step.id)}: prompts longer than the context are condensed, each part of their texts by a task"
        for step in run.steps.values()
        if is_part(step.id)
    ]
    return found + [
        f"step {step.id}: prompts longer than the context of {left.context_tokens:,} tokens {becomes}; "
        "`long: refuse` in the recipe refuses them"
        for step in run.steps.values()
        if (left := step.left_out) is not None and (becomes := _becomes(left))
    ]


def sums(run: RunState) -> list[str]:
    """What was left out of each step's prompts, when the run is over."""
    return [_sum(step.id, left) for step in run.steps.values() if (left := step.left_out) is not None]


def _sum(step: str, left: LeftOut) -> str:
    found = [f"{left.parts:,} of {left.of:,} parts of their texts went in"] if left.of else []
    if left.condensed:
        found.append(f"notes on the {left.condensed:,} parts of their texts went in")
    if left.dropped:
        found.append(f"the {_turns(left.dropped)} of their {left.messages:,} messages were left out")
    prompts = "1 prompt was" if left.prompts == 1 else f"{left.prompts:,} prompts were"
    said = f"step {step}: {prompts} longer than the context: {'; '.join(found)}"
    return f"{said} ({left.tokens_kept:,} of {left.tokens:,} tokens){''.join(f' ({one})' for one in left.without)}"


def _becomes(left: LeftOut) -> str:
    texts = ["get the parts of their texts that are nearest to the question"] if left.of else []
    lost = "lose the oldest turns of the dialogue" + (", but for notes on them" if left.condensed else "")
    return " and ".join([*texts, *([lost] if left.dropped else [])])


def _of_text(kept: Kept) -> str:
    if kept.notes:
        return f"notes on the {kept.of:,} parts of {named(kept.field)} went in"
    return f"{kept.of - sum(kept.left_out):,} of {kept.of:,} parts of {named(kept.field)} went in"


def _turns(dropped: int) -> str:
    return "oldest one" if dropped == 1 else f"{dropped:,} oldest"
