"""A run to come as a scene: the tasks of each step with the tokens that they are forecast to take.

Forecasts have means, so the tasks of a step are all alike. Where earlier tasks of the model were timed here, the
machine does so many tokens a second, prompts and answers together; where none were, it is taken to read the model's
weights from memory once for each token, and that is said.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf

from gx.core.errors import UsageError
from gx.core.gpus import LAPTOP_GB_PER_S
from gx.flow.plan import Plan
from gx.run.dryrun import Forecast
from gx.run.replay.line import Line, Pace
from gx.run.replay.paper import Scene
from gx.run.replay.trace import Edge, Job, Trace


def scene_of(
    plan: Plan,
    forecasts: Sequence[Forecast],
    *,
    slots: int,
    private: Collection[str],
    sizes: Mapping[str, int],
) -> Scene:
    """The scene. `private` are the steps that stay here, `sizes` the bytes of the models that are here, by source.

    :raises UsageError: if nothing is left to compute, or nothing is known of a model.
    """
    if not any(one.tokens_in + one.tokens_out for one in forecasts):
        raise UsageError(
            "there is nothing to plan: the recipe has no task, or all of its results are in the log",
            hint="--fresh plans them anew",
        )
    rate, assumed = _tokens_per_s(forecasts, sizes)
    each = Line(each_s=1 / rate)
    jobs = [job for one in forecasts for job in _jobs(one, one.step in private)]
    return Scene(
        name=plan.recipe.name,
        trace=Trace(jobs=tuple(jobs), after=_after(plan, {job.group for job in jobs})),
        edge=Edge(pace=Pace(decode=each, prefill=each), slots=slots),
        is_measured=not assumed,
        deadline_s=plan.recipe.deadline_s,
        private_steps=tuple(one.step for one in forecasts if one.step in private),
        assumed=assumed,
        notes=tuple(_notes(forecasts)),
    )


def _jobs(one: Forecast, is_private: bool) -> list[Job]:
    count = max(1, one.tasks - one.reused) if one.tokens_in + one.tokens_out else 0
    return [
        Job(
            task=f"{one.step}/{n}",
            group=one.step,
            tokens_in=one.tokens_in / count,
            tokens_out=one.tokens_out / count,
            is_private=is_private,
        )
        for n in range(count)
    ]


def _after(plan: Plan, groups: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Which steps wait for which; of one that has nothing to do, for what that waits for."""
    found: dict[str, tuple[str, ...]] = {}
    for planned in plan.steps:
        step = planned.step
        names = dict.fromkeys([*step.needs, *filter(None, (step.for_each, step.reduce)), *sorted(planned.reads_steps)])
        waits = [one for name in names for one in ((name,) if name in groups else found.get(name, ()))]
        found[step.id] = tuple(dict.fromkeys(waits))
    return {name: others for name, others in found.items() if others and name in groups}


def _tokens_per_s(forecasts: Sequence[Forecast], sizes: Mapping[str, int]) -> tuple[float, tuple[str, ...]]:
    """Of this machine over all steps, and what was assumed for that."""
    seconds, tokens, assumed = 0.0, 0, dict[str, None]()
    for one in forecasts:
        of_step = one.tokens_in + one.tokens_out
        tokens += of_step
        if one.seconds is not None:
            seconds += one.seconds
            continue
        known = [sizes[model] for model in one.models if model in sizes]
        if len(known) < len(one.models):
            gone = ", ".join(model for model in one.models if model not in sizes)
            raise UsageError(f"nothing is known of a model that isn't here: {gone}", hint=f"gx models pull {gone}")
        pace = LAPTOP_GB_PER_S * 1e9 / max(1, sum(known) / max(1, len(known)))
        seconds += of_step / pace
        assumed[
            f"this machine does {pace:,.0f} tokens/s: {', '.join(one.models)} has not run here yet"
            f" (`gx run RECIPE --limit 5` measures it)"
        ] = None
    return (tokens / seconds if seconds else inf), tuple(assumed)


def _notes(forecasts: Sequence[Forecast]) -> list[str]:
    guessed = [one.step for one in forecasts if not one.is_exact]
    return [f"how many tasks these steps have is an estimate: {', '.join(guessed)}"] if guessed else []
