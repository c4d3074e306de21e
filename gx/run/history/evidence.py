"""The events that answer a why, and the figures of a run at a moment: what `history.why` asks of the log.

However long the run, only the subject's own events come, those of its run, and those of nodes and benches.
"""

from __future__ import annotations

from gx.core import event as e
from gx.core.errors import NotFound, UsageError
from gx.core.event import Event
from gx.run.history import past
from gx.run.history.past import Ask, events, text
from gx.run.history.why import Figures, Why, of_event, of_run
from gx.run.history.whytask import of_task

_HOSTS = "type IN ('bench.started', 'bench.exited', 'node.started', 'node.stopped')"
_NO_MOVE = "('content.erased', 'attempt.superseded', 'attempt.failed')"
"""Events of a task that don't say where it stands: what follows a failure does."""
_MOST_LINES = 200
"""Events of a run or a task that may stand before one that is asked about."""


def why(ask: Ask, subject: str) -> Why:
    """Why a task, a run, or what the event of that `seq` says.

    :raises NotFound: if there is none. :raises UsageError: if several ids start so.
    """
    if subject.isdecimal() and (found := events(ask, f"seq = {min(int(subject), 2**62)}")):
        return _of_event(ask, found[0])
    name, run = _resolve(ask, subject)
    last = ask("SELECT max(seq) AS seq FROM events")[0]["seq"]
    if name == run:
        return of_run(run, _of_run(ask, run, last), figures(ask, run, last))
    own = _own(ask, name, run)
    found = sorted({event.seq: event for event in [*own, *_of_run(ask, run, last)]}.values(), key=lambda ev: ev.seq)
    queued = next(ev.seq for ev in own if isinstance(ev.body, e.TaskQueued) and ev.body.task == name)
    return of_task(name, found, figures(ask, run, last, before=queued))


def _resolve(ask: Ask, subject: str) -> tuple[str, str]:
    """The whole id of a run or task that starts so, and its run."""
    rows = ask(
        f"""SELECT DISTINCT coalesce(task, run) AS name, run FROM events
        WHERE (type = 'run.created' AND starts_with(run, {text(subject)}))
            OR (type = 'task.queued' AND starts_with(task, {text(subject)})) ORDER BY length(name), name LIMIT 6"""
    )
    exact = [row for row in rows if row["name"] == subject]
    if not rows:
        hint = "`gx runs` lists the runs, `gx log` the events with their seq"
        raise NotFound(f"there is no run, task or event {subject}", hint=hint)
    if len(rows) > 1 and not exact:
        names = ", ".join(row["name"] for row in rows[:5]) + " …" * (len(rows) > 5)
        raise UsageError(f"{subject} is the start of several ids: {names}", hint="give more of it")
    found = (exact or rows)[0]
    return str(found["name"]), str(found["run"])


def _own(ask: Ask, task: str, run: str) -> list[Event]:
    """The events of the task, and those of the one whose result it has or waits for."""
    own = events(ask, f"task = {text(task)}")
    other = next((ev.body.cached for ev in own if isinstance(ev.body, e.TaskSucceeded) and ev.body.cached), None)
    key = next((ev.body.key for ev in reversed(own) if isinstance(ev.body, e.TaskPrepared)), None)
    is_over = any(isinstance(ev.body, e.TaskSucceeded | e.TaskFailed | e.TaskCancelled | e.TaskSkipped) for ev in own)
    if other is None and key is not None and not is_over:
        same = f"SELECT task FROM events WHERE type = 'task.prepared' AND run = {text(run)} AND key = {text(key)}"
        others = [row["task"] for row in ask(f"{same} ORDER BY seq LIMIT 20") if row["task"] != task]
        return [*own, *(events(ask, f"task IN {past.texts(others)}") if others else ())]
    return [*own, *(events(ask, f"task = {text(other)}") if other not in (None, task) else ())]


def _of_run(ask: Ask, run: str, upto: int) -> list[Event]:
    """The events of the run itself, and those of nodes and benches."""
    own = f"run = {text(run)} AND task IS NULL AND type NOT IN ('inputs.read', 'bench.measured', 'content.erased')"
    return events(ask, f"(({own}) OR {_HOSTS}) AND seq <= {upto}")


def _of_event(ask: Ask, event: Event) -> Why:
    run, task = getattr(event.body, "run", None), getattr(event.body, "task", None)
    hosts = events(ask, f"{_HOSTS} AND seq <= {event.seq}")
    own: list[Event] = []
    if task is not None:
        own = events(ask, f"task = {text(task)} AND seq <= {event.seq}")[-_MOST_LINES:]
    elif run is not None:
        own = _of_run(ask, run, event.seq)[-_MOST_LINES:]
    found = {ev.seq: ev for ev in [*hosts, *own]}
    counts = None if run is None else figures(ask, run, event.seq)
    return of_event(event, [found[seq] for seq in sorted(found)], counts)


def figures(ask: Ask, run: str, upto: int, *, before: int = -1) -> Figures:
    """How the run stood after the event `upto`; `before` is the `seq` that queued the task that is asked about."""
    own = f"run = {text(run)} AND seq <= {upto}"
    rows = ask(
        f"""SELECT last, count(*) AS n, count(*) FILTER (first < {before}) AS ahead FROM (
            SELECT arg_max(type, seq) AS last, min(seq) AS first FROM events
            WHERE {own} AND task IS NOT NULL AND type NOT IN {_NO_MOVE} GROUP BY task) GROUP BY last"""
    )
    names = {"task.queued": "queued", "task.leased": "running", "task.prepared": "prepared", "attempt.lost": "prepared",
             "task.retried": "prepared"}  # fmt: skip
    counts = dict.fromkeys(("queued", "running", "prepared", "ended", "ahead"), 0)
    for row in rows:
        counts[names.get(row["last"], "ended")] += row["n"]
        counts["ahead"] += row["ahead"] if row["last"] in names else 0
    spent = ask(f"SELECT coalesce(sum(tok_in), 0) + coalesce(sum(tok_out), 0) AS n FROM events WHERE {own}")
    failed = ask(
        f"""SELECT data->>'$.code' AS code, count(*) AS n FROM events WHERE {own} AND type = 'task.failed'
        GROUP BY code ORDER BY code"""
    )
    return Figures(**counts, tokens=int(spent[0]["n"]), failures={row["code"]: row["n"] for row in failed})
