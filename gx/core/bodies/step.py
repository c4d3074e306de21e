"""What happened to a step: how it unfolded, and where its tasks go."""

from __future__ import annotations

from gx.core.message import Value


class StepUnfolded(Value, frozen=True, kw_only=True, tag="step.unfolded"):
    """All tasks of the step (of this level of its tree, for a reduce) are made."""

    run: str
    step: str
    tasks: int
    level: int = 0


class StepGrouped(Value, frozen=True, kw_only=True, tag="step.grouped"):
    """How one level of a reduce is cut: `spans` are [start, stop) over what the level below gave, in order."""

    run: str
    step: str
    level: int
    spans: tuple[tuple[int, int], ...]


class StepSkipped(Value, frozen=True, kw_only=True, tag="step.skipped"):
    run: str
    step: str
    reason: str


class StepPaused(Value, frozen=True, kw_only=True, tag="step.paused"):
    """Nothing of the step begins until it is continued; what is running ends."""

    run: str
    step: str
    by: str = ""


class StepContinued(Value, frozen=True, kw_only=True, tag="step.continued"):
    """A paused step goes on."""

    run: str
    step: str
    by: str = ""


class StepRouted(Value, frozen=True, kw_only=True, tag="step.routed"):
    """From now on the step's tasks are prepared for that agent, or for their own agent on that model.

    What is running ends as it is. `None` for both is the recipe's own way again.
    """

    run: str
    step: str
    agent: str | None = None
    model: str | None = None
    by: str = ""
