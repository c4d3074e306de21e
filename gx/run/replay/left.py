"""What is left of a run in the log, as a scene: its tasks that have not ended, this machine as it was measured in it.

A task that hasn't ended is taken to need what those of its step that did needed on average, or those of all steps. Of a
run that is over, all of it is the scene: what it would have been.

Invariant: nothing is guessed silently. What the log can't know yet is in the notes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from gx.core import event as e
from gx.core.errors import UsageError
from gx.core.event import Event
from gx.core.message import Counts
from gx.core.recipe import Recipe
from gx.run.history.past import Ask, Past, events, look_at, text
from gx.run.replay.line import Line, Pace, pace_of
from gx.run.replay.paper import Scene
from gx.run.replay.recorded import MOVES, Clock, groups_after, jobs_of, measured, notes_of, recorded
from gx.run.replay.trace import Edge, Job, Trace


def scene_of_run(ask: Ask, start: str, *, now: float) -> Scene:
    """The scene of the run whose id starts so. `now` is in wall-clock seconds.

    :raises NotFound: if there is none. :raises UsageError: if nothing of it has ended yet, so that nothing is known.
    """
    past = look_at(ask, start)
    if past.status == "finished":
        return _whole(ask, past)
    own = events(ask, f"(run = {text(past.run)} AND task IS NULL) OR type = 'node.started'")
    jobs = jobs_of(past, events(ask, f"run = {text(past.run)} AND type IN {MOVES}"), Clock(own))
    over = ask(f"SELECT task FROM tasks WHERE run = {text(past.run)} AND ended IS NOT NULL")
    ended = {row["task"] for row in over}
    done = [job for job in jobs if job.task in ended and job.tokens]
    if not done:
        raise UsageError(
            f"nothing of {past.run} has ended yet, so nothing can be told of the rest",
            hint="wait a little; or plan its recipe: gx burst --plan RECIPE",
        )
    left = [_expected(job, done) for job in jobs if job.task not in ended]
    if not left:
        raise UsageError(f"nothing of {past.run} is left that is known of", hint=f"gx why {past.run}")
    counts, rented, slots = measured(own)
    written = sum(job.tokens_out for job in done)
    pace = _pace(ask, past, counts, done)
    return Scene(
        name=past.run,
        trace=Trace(jobs=tuple(left), after=groups_after(past, left)),
        edge=Edge(pace=pace, slots=slots if slots > 1 else max(1, _held(ask, past))),
        is_measured=True,
        rented=pace_of(rented, written) if rented.decode_squares else None,
        deadline_s=_left_s(past, own, now),
        private_steps=_private(left),
        notes=(*notes_of(pace, 0.0), *_unknown(past, own, jobs)),
    )


def _whole(ask: Ask, past: Past) -> Scene:
    run = recorded(ask, past.run)
    deadline_at, started_at = past.created.deadline_at, past.created.started_at
    return Scene(
        name=run.run,
        trace=run.trace,
        edge=Edge(pace=run.pace, slots=run.slots, startup_s=run.startup_s),
        is_measured=True,
        rented=run.rented,
        deadline_s=None if deadline_at is None else deadline_at - started_at,
        private_steps=_private(run.trace.jobs),
        notes=(f"{run.run} is over: this is all of it, which took {run.makespan_s:.1f} s", *run.notes),
    )


def _expected(job: Job, done: Sequence[Job]) -> Job:
    """The task with the mean tokens of those of its step that ended, or of all; it may begin at once."""
    alike = [one for one in done if one.group == job.group] or done
    means = {
        name: sum(getattr(one, name) for one in alike) / len(alike)
        for name in ("tokens_in", "tokens_cached", "tokens_out")
    }
    return msgspec.structs.replace(job, at_s=0.0, **means)


def _pace(ask: Ask, past: Past, counts: Counts, done: Sequence[Job]) -> Pace:
    """What the engine's calls took; where they weren't added up, tokens by the seconds in which something ran."""
    if counts.decode_squares or counts.prefill_squares:
        return pace_of(counts, sum(job.tokens_out for job in done))
    ((busy_s,),) = (
        tuple(row.values())
        for row in ask(f"""
            WITH a AS (SELECT epoch(started) AS started, epoch(ended) AS ended FROM attempts
                WHERE run = {text(past.run)} AND outcome = 'succeeded'),
            b AS (SELECT *, max(ended) OVER (ORDER BY started, ended
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM a)
            SELECT sum(greatest(0, ended - greatest(started, coalesce(before, 0)))) AS busy_s FROM b""")
    )
    if not busy_s:
        raise UsageError(
            f"the log doesn't say how long the work of {past.run} took", hint="wait until more of it has ended"
        )
    each = Line(each_s=busy_s / sum(job.tokens - job.tokens_cached for job in done))
    return Pace(decode=each, prefill=each)


def _held(ask: Ask, past: Past) -> int:
    """How many leases the run has now."""
    ((held,),) = (
        tuple(row.values())
        for row in ask(f"SELECT count(*) AS n FROM tasks WHERE run = {text(past.run)} AND status = 'leased'")
    )
    return int(held)


def _left_s(past: Past, own: Sequence[Event], now: float) -> float | None:
    """How long there is until the run's deadline, the last that was set."""
    at = past.created.deadline_at
    for event in own:
        changed = getattr(event.body, "deadline_at", None)
        if changed is not None and getattr(event.body, "run", "") == past.run:
            at = changed
    return None if at is None else max(0.0, at - now)


def _private(jobs: Collection[Job]) -> tuple[str, ...]:
    return tuple(sorted({job.group.rsplit("/", 1)[0] for job in jobs if job.is_private}))


def _unknown(past: Past, own: Sequence[Event], jobs: Sequence[Job]) -> list[str]:
    """What will be there later, and isn't in the scene."""
    found = []
    if _reads_inputs(past.recipe) and not any(isinstance(event.body, e.InputsEnded) for event in own):
        found.append("its input is not read to the end: rows to come are not counted")
    known = {job.group.rsplit("/", 1)[0] for job in jobs}
    if later := [step.id for step in past.recipe.steps if step.id not in known]:
        found.append(f"steps that have no task yet are not counted: {', '.join(later)}")
    return found


def _reads_inputs(recipe: Recipe) -> bool:
    return any(step.for_each == "inputs" or step.reduce == "inputs" for step in recipe.steps)
