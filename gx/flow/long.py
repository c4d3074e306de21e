"""The step that a step's parts belong to: where a long text is condensed, each part of it is a task of its own. Pure.

Such a step stands in no recipe and unfolds from nothing. Its tasks go by all rules of tasks: they are recorded,
retried, paid for, cancelled and found in the log again; their agent is the step's own, and takes notes instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gx.core.recipe import Agent, Long, Step

if TYPE_CHECKING:
    from gx.flow.plan import StepPlan

PARTS = "/parts"
"""What the name of such a step ends in; no step of a recipe has a name like that."""
PART_PROMPT = """\
This is part {{ item.number }} of {{ item.of }} of a text. Write down, in at most {{ item.words }} words, what this \
part says that matters for the request below. Don't answer the request, and add nothing that the part doesn't say.

Part {{ item.number }} of {{ item.of }}:
{{ item.part }}

Request: {{ item.request }}

Notes:"""
"""What each part is asked for. Changing it changes the keys of all parts."""


def is_part(step_id: str) -> bool:
    """Whether a step is that of another one's parts."""
    return step_id.endswith(PARTS)


def owner(step_id: str) -> str:
    """The step of the recipe that a step is about: itself, or the one whose parts it has."""
    return step_id.removesuffix(PARTS)


def step_of_parts(of: StepPlan) -> StepPlan:
    """The step that condenses parts for `of`."""
    step = Step(
        id=of.id + PARTS,
        agent=of.step.agent,
        prompt=PART_PROMPT,
        matrix=of.step.matrix,
        retry=of.step.retry,
        timeout_s=of.step.timeout_s,
        continue_on_error=of.step.continue_on_error,
        private=of.step.private,
        long=Long(how="refuse", dialogue="refuse"),
    )
    return msgspec.structs.replace(of, step=step, gate=None, filter=None, reads_steps=frozenset(), answers={})


def note_taker(agent: Agent) -> Agent:
    """The agent, as it takes notes: in plain text, about the part alone."""
    return msgspec.structs.replace(agent, output=None, grammar=None, choose=None, memory=None)
