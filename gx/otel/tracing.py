"""A run's events, one by one, and the spans that each of them ends.

A sitting of the run (from its beginning or resumption until it stops for whatever reason) is a root span, within it the
steps that it worked on, within these the tasks that ended, within these their attempts, each a call of the model. A
span is given once, by the event that ended it, so that nothing given is ever taken back; what a node that died had in
hand ends as its successor finds it lost. All instants are those of events. Only tasks that go on are held.
"""

from __future__ import annotations

from gx.core import event as e
from gx.core.task import CloudLease
from gx.flow.plan import Plan
from gx.otel import conventions as c
from gx.otel.spans import LiveTask, Worked, attempt_span, counted, model_name, run_span, step_span, task_span
from gx.otel.values import Attributes, Span, trace_id

LOST, CANCELLED = "lost", "cancelled"
"""Errors of attempts that no code of a failure says: the worker went away, or somebody gave the task up."""
_STOPS = (e.RunFinished, e.RunInterrupted, e.RunStopped, e.RunCancelled)
_TASK_ENDS = (e.TaskSucceeded, e.TaskFailed, e.TaskCancelled, e.TaskSkipped)


class Tracer:
    """Folds the events of one run of that plan, in order. `tasks` are those that go on; `ended` counts the others."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._routes: dict[str, e.StepRouted] = {}
        self._known = set[int]()
        self._steps: dict[str, Worked] = {}
        self._sitting, self._is_open, self._began = 0, False, 0
        self._trace = self._run = self._name = ""
        self.tasks: dict[str, LiveTask] = {}
        self.ended: dict[str, int] = {}

    def take(self, event: e.Event) -> list[Span]:
        """The spans that the event ends, the innermost first."""
        body = event.body
        if isinstance(body, e.RunCreated):
            self._trace, self._run, self._name = trace_id(body.run, body.started_at), body.run, body.name
            self._sit_down(event.ts)
        elif isinstance(body, e.RunResumed):
            if not self._is_open:  # else its node died, and the sitting goes on
                self._sit_down(event.ts)
        elif isinstance(body, _STOPS):
            return self._stand_up(event, body)
        elif isinstance(body, e.StepRouted):
            self._routes[body.step] = body
        elif isinstance(body, e.TaskQueued):
            self._queue(event.ts, body)
        elif (task := self._task_of(body)) is not None:
            return self._follow(event, task)
        return []

    # ── a task ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _queue(self, ts: int, body: e.TaskQueued) -> None:
        if (number := int(body.task, 16)) in self._known:
            return
        self._known.add(number)
        self.tasks[body.task] = LiveTask(
            id=body.task, step=body.step, index=body.index, level=body.level, matrix=body.matrix, queued=ts
        )

    def _task_of(self, body: e.Body) -> LiveTask | None:
        """The task whose present attempt the event is about: what a stale one says changes nothing."""
        task = self.tasks.get(getattr(body, "task", None) or "")
        return task if task is not None and getattr(body, "attempt", None) == task.attempt else None

    def _follow(self, event: e.Event, task: LiveTask) -> list[Span]:
        body, spans = event.body, list[Span]()
        if isinstance(body, e.TaskPrepared):
            self._prepare(body, task)
        elif isinstance(body, e.TaskLeased):
            task.leased, task.worker = event.ts, body.worker
            task.gpu = body.lease.gpu if isinstance(body.lease, CloudLease) else ""
        elif isinstance(body, e.AttemptFailed):
            spans = self._attempt(event, task, body.code, (body.tok_in, body.tok_out))
            task.failures += 1
        elif isinstance(body, e.AttemptLost):
            spans = self._attempt(event, task, LOST)
            task.attempt += 1
        elif isinstance(body, e.TaskRetried):
            task.attempt += 1
        elif isinstance(body, _TASK_ENDS):
            spans = self._end(event, body, task)
        return spans

    def _prepare(self, body: e.TaskPrepared, task: LiveTask) -> None:
        """Its agent and model are those of the recipe, or of a route that was set by now."""
        recipe, route = self._plan.recipe, self._routes.get(task.step)
        agent = recipe.agents[(route and route.agent) or self._plan.step(task.step).agent_of(task.matrix)]
        model = agent.model if route is None or route.model is None else route.model
        task.agent, task.model = agent, model_name(recipe.models[model].source)
        task.seed, task.found = body.seed, None if body.found is None else len(body.found)

    def _attempt(
        self,
        event: e.Event,
        task: LiveTask,
        error: str = "",
        tokens: tuple[int, int] | None = None,
        more: Attributes | None = None,
    ) -> list[Span]:
        """The call that is under way, if one is."""
        if task.leased is None:
            return []
        span = attempt_span(self._trace, task, event, error, tokens, more or {})
        task.leased = None
        return [span]

    def _end(self, event: e.Event, body: e.Body, task: LiveTask) -> list[Span]:
        """The last attempt, if it ends with the task, and the task."""
        spans, status, error = list[Span](), "skipped", ""
        told: Attributes = {}
        if isinstance(body, e.TaskSucceeded):
            status, told = "succeeded", {"gx.is_cached": body.cached is not None}
            more: Attributes = {c.FINISH: (body.finish,), c.TOKENS_CACHED: body.tok_cached}
            spans = self._attempt(event, task, "", (body.tok_in, body.tok_out), more)
        elif isinstance(body, e.TaskFailed):
            status, error = "failed", body.code
            spans = self._attempt(event, task, body.code)
        elif isinstance(body, e.TaskCancelled):
            status = error = CANCELLED
            spans = self._attempt(event, task, CANCELLED)
        del self.tasks[task.id]
        self.ended[status] = self.ended.get(status, 0) + 1
        done = self._steps.setdefault(task.step, Worked(start=task.queued, end=event.ts))
        done.start, done.end = min(done.start, task.queued), max(done.end, event.ts)
        done.ended[status] = done.ended.get(status, 0) + 1
        return [*spans, task_span(self._trace, self._sitting, task, event, status, error, told)]

    # ── a sitting ────────────────────────────────────────────────────────────────────────────────────────────────

    def _sit_down(self, ts: int) -> None:
        self._sitting, self._is_open, self._began = self._sitting + 1, True, ts
        self._steps = {}

    def _stand_up(self, event: e.Event, body: e.Body) -> list[Span]:
        """The steps of this sitting, and the sitting."""
        if not self._is_open:
            return []
        self._is_open = False
        steps = [step_span(self._trace, self._sitting, name, d, event.seq) for name, d in self._steps.items()]
        told = counted(list(self._steps.values()))
        last = run_span(self._trace, self._sitting, self._run, self._name, self._began, event, _how(body), told)
        return [*steps, last]


def _how(body: e.Body) -> tuple[str, str]:
    """How a sitting ended: its status, and its class of error."""
    if isinstance(body, e.RunFinished):
        return "finished", ""
    if isinstance(body, e.RunStopped):
        return "stopped", body.limit
    return (CANCELLED, CANCELLED) if isinstance(body, e.RunCancelled) else ("interrupted", "interrupted")
