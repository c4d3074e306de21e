"""A run as the log has it, as a trace: its tasks and when they came, what the engine's calls took, and how long it was.

The log is asked by SQL, through whoever can answer. Time counts while the run went on: what lies between an
interruption and its resumption is left out. Attempts that failed count as work of their task; back-offs do not.

Invariant: nothing is guessed silently. What a prediction rests on that wasn't measured is in `notes`.
"""

from __future__ import annotations

from gx.core import event as e
from gx.core.errors import UsageError
from gx.core.event import Event
from gx.core.figures import plus
from gx.core.message import Counts, Label, Value
from gx.core.recipe import Step
from gx.run.history.past import Ask, Past, events, look_at, text
from gx.run.replay.line import Pace, pace_of
from gx.run.replay.trace import Job, Trace

MOVES = "('task.queued', 'task.prepared', 'task.succeeded', 'attempt.failed')"
_OWN_ROUNDS = 1.05
"""More decoded tokens for each that was written are another run's, which shared the bench, or thrown away."""
_TOLD_S = 1.0


class Recorded(Value, frozen=True, kw_only=True):
    """A run that can be played. `makespan_s` is what it took on `slots`; `startup_s` of that was before and around its
    calls. `rented` is the pace of its containers, where it had any.
    """

    run: str
    trace: Trace
    pace: Pace
    rented: Pace | None
    slots: int
    startup_s: float
    makespan_s: float
    calls: int
    notes: tuple[str, ...] = ()


def recorded(ask: Ask, start: str) -> Recorded:
    """The run whose id starts so.

    :raises NotFound: if there is none. :raises UsageError: if it isn't finished, computed nothing, or was measured by a
        gx that didn't add up what calls take.
    """
    past = look_at(ask, start)
    if past.status != "finished":
        raise UsageError(
            f"expected a finished run, but {past.run} is {past.status}", hint="`gx runs` lists those that are finished"
        )
    own = events(ask, f"(run = {text(past.run)} AND task IS NULL) OR type = 'node.started'")
    jobs = jobs_of(past, events(ask, f"run = {text(past.run)} AND type IN {MOVES}"), Clock(own))
    if not any(job.tokens for job in jobs):
        raise UsageError(
            f"{past.run} computed nothing: all of its results came from the log, or no task reached a model",
            hint="replay the run that computed them, or run it again with --fresh",
        )
    edge, cloud, slots = measured(own)
    if not edge.decode_squares and not edge.prefill_squares:
        raise UsageError(
            f"the log doesn't say what the engine's calls took in {past.run}",
            hint="it was run by an older gx, or its bench was killed; run it again with --fresh",
        )
    makespan_s = Clock(own).seconds(max(event.ts for event in own if not isinstance(event.body, e.NodeStarted)))
    written = sum(job.tokens_out for job in jobs)
    pace = pace_of(edge, written)
    last_s = max(job.at_s for job in jobs)
    return Recorded(
        run=past.run,
        trace=Trace(jobs=tuple(jobs), after=groups_after(past, jobs)),
        pace=pace,
        rented=pace_of(cloud, written) if cloud.decode_squares else None,
        slots=slots,
        startup_s=max(0.0, makespan_s - edge.busy_s - last_s),
        makespan_s=makespan_s,
        calls=edge.decode_calls + edge.prefill_calls,
        notes=tuple(notes_of(pace, held_up_s(own, Clock(own)))),
    )


class Clock:
    """Seconds of a run by the log's instants, without those in which it was interrupted or had no node."""

    def __init__(self, own: list[Event]) -> None:
        """`own` are the run's own events, and those that say that a node started."""
        self._began = next(event.ts for event in own if isinstance(event.body, e.RunCreated))
        self._gaps: list[tuple[int, int]] = []
        since, is_away = self._began, False
        for event in own:
            if event.ts < self._began:
                continue
            if isinstance(event.body, e.RunResumed) and is_away:
                self._gaps.append((since, event.ts))
            if isinstance(event.body, e.NodeStarted):
                is_away = True
            else:
                since, is_away = event.ts, isinstance(event.body, e.RunInterrupted | e.RunStopped)

    def seconds(self, ts: int) -> float:
        away = sum(max(0, min(ts, end) - begin) for begin, end in self._gaps)
        return max(0.0, (ts - self._began - away) / 1e6)


def held_up_s(own: list[Event], clock: Clock) -> float:
    """Seconds in which the run was paused, or waited for an answer: nothing new began."""
    held_s, since, why = 0.0, 0, set[str]()
    for event in own:
        body, was_held = event.body, bool(why)
        if isinstance(body, e.RunPaused):
            why.add("")
        elif isinstance(body, e.RunContinued):
            why.discard("")
        elif isinstance(body, e.QuestionAsked):
            why.add(body.question)
        elif isinstance(body, e.QuestionAnswered):
            why.discard(body.question)
        if why and not was_held:
            since = event.ts
        elif was_held and not why:
            held_s += clock.seconds(event.ts) - clock.seconds(since)
    return held_s


def measured(own: list[Event]) -> tuple[Counts, Counts, int]:
    """What the benches here did, what rented ones did, and how many slots there were here."""
    edge, cloud, slots = Counts(), Counts(), 1
    for event in own:
        if isinstance(event.body, e.BenchMeasured):
            if event.body.worker == "cloud":
                cloud = plus(event.body, cloud)
            else:
                edge, slots = plus(event.body, edge), event.body.slots or slots
    return edge, cloud, slots


def jobs_of(past: Past, moves: list[Event], clock: Clock) -> list[Job]:
    """The tasks, in the order in which they were queued. What depends on others comes as soon as those have ended."""
    found: dict[str, Job] = {}
    first = {step.id: step.for_each == "inputs" and not step.needs for step in past.recipe.steps}
    for event in moves:
        body = event.body
        if isinstance(body, e.TaskQueued):
            group = f"{body.step}/{body.level}"
            at_s = clock.seconds(event.ts) if first.get(body.step, False) else 0.0
            found[body.task] = Job(task=body.task, group=group, at_s=at_s, tokens_in=0.0, tokens_out=0.0)
            continue
        job = found.get(getattr(body, "task", ""))
        if job is None:
            continue
        cached, written, read, is_private = 0, 0, 0, job.is_private
        if isinstance(body, e.TaskPrepared):
            is_private = body.label is Label.private
        elif isinstance(body, e.TaskSucceeded | e.AttemptFailed):
            read, written = body.tok_in, body.tok_out
            cached = body.tok_cached if isinstance(body, e.TaskSucceeded) else 0
        found[job.task] = Job(
            task=job.task,
            group=job.group,
            at_s=job.at_s,
            tokens_in=job.tokens_in + read - cached,
            tokens_cached=job.tokens_cached + cached,
            tokens_out=job.tokens_out + written,
            is_private=is_private,
        )
    return list(found.values())


def groups_after(past: Past, jobs: list[Job]) -> dict[str, tuple[str, ...]]:
    """Which groups wait for which: a level of a reduce for that below, a step for the last level of what it reads."""
    levels: dict[str, list[int]] = {}
    for name, level in sorted({(name, int(level)) for name, level in (job.group.rsplit("/", 1) for job in jobs)}):
        levels.setdefault(name, []).append(level)
    after: dict[str, tuple[str, ...]] = {}
    for step in past.recipe.steps:
        for index, level in enumerate(levels.get(step.id, [])):
            below = [f"{step.id}/{levels[step.id][index - 1]}"] if index else []
            after[f"{step.id}/{level}"] = (*below, *_needed(step, levels))
    return {group: others for group, others in after.items() if others}


def _needed(step: Step, levels: dict[str, list[int]]) -> list[str]:
    names = dict.fromkeys([*step.needs, *filter(None, (step.for_each, step.reduce))])
    return [f"{name}/{levels[name][-1]}" for name in names if levels.get(name)]


def notes_of(pace: Pace, held_s: float) -> list[str]:
    found = []
    if pace.decode.is_assumed:
        found.append("all decode calls had as many rows: how a call's time depends on them is assumed, not measured")
    if pace.rounds > _OWN_ROUNDS:
        found.append(
            "the bench decoded more than this run wrote, for other runs or for attempts that were taken back,"
            " and that is in its times"
        )
    if held_s >= _TOLD_S:
        found.append(f"the run was held up for {held_s:.0f} s, paused or by a question, and that is in its time")
    return found
