"""A run that somebody wants now: what the dispatcher holds of it beside the view, none of which outlives the process.

Turns at hand (a bounded window), the results that there are for its watchers, and why it is ending, if it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import anyio

from gx.core import event as e
from gx.core.errors import GxError
from gx.core.message import Turn
from gx.core.task import Status
from gx.core.view import RunState, TaskState
from gx.flow import graph
from gx.flow.plan import Plan
from gx.run import scheduler
from gx.run.contents import Contents
from gx.run.inputs import Row
from gx.run.memory.learning import Learner
from gx.run.prepare import Preparer
from gx.run.record import Record
from gx.run.rent.renter import Renter
from gx.run.results import CHUNK_BYTES, Results

STREAM_AHEAD = 8192
"""Tasks that may wait to be begun before a stream is read on: more than any worker takes at once."""


class ActiveRun:
    """One live run. The dispatcher drives it; its clients watch `results`.

    One that drains lets what is leased end, and begins no more; one that is given up (`is_given_up`) has lost it.
    While nobody attends to it (`is_attended`), or somebody paused it, it gets no grants. Rows that come from a stream
    (`reads_stream`) may have no end, and are read only as far ahead as they are needed.
    """

    def __init__(
        self,
        plan: Plan,
        state: RunState,
        preparer: Preparer,
        contents: Contents,
        rows: Iterator[Row] | None,
        *,
        reads_stream: bool = False,
    ) -> None:
        self.plan, self.state, self.preparer, self.rows = plan, state, preparer, rows
        self._reads_stream, self.rows_given = reads_stream, len(state.rows)
        self._contents = contents
        self.turns: dict[str, Turn] = {}
        self.begun_at: dict[str, scheduler.Begun] = {}
        self.is_grouping: set[tuple[str, int]] = set()
        self.is_dirty = True
        self.draining: scheduler.LastWord | None = None
        self.draining_since = 0.0
        self.is_given_up = False
        self.error: GxError | None = None
        self.is_over = False
        self.is_attended = True
        self.renter: Renter | None = None
        self.over = anyio.Event()
        self.results = Results(self._read)
        self._sent_reduce = False
        self._queue_earlier_results()

    # ── how it stands ────────────────────────────────────────────────────────────────────────────────────────────

    def held(self) -> scheduler.Held:
        """What this process holds of the run, for those who decide."""
        home = () if self.renter is None else self.renter.tail.home
        return scheduler.Held(self.turns, self.begun_at, self.draining, self.draining_since, self.is_held_up, home)

    @property
    def is_held_up(self) -> bool:
        """Whether nothing new may begin: nobody wants the results, or not so fast, or the run is paused, or asks."""
        return not self.is_attended or self.state.is_paused or bool(self.state.questions) or self.results.is_slow

    @property
    def learner(self) -> Learner:
        """What its results leave in the memory."""
        return self.preparer.learner

    @property
    def has_rows_enough(self) -> bool:
        """Whether a stream is read on later: the last rows are no tasks yet, many wait, or nobody takes the results."""
        if not self._reads_stream:
            return False
        is_behind = self.is_dirty or self.rows_given > len(self.state.rows)
        waiting = len(self.state.unprepared) + len(self.state.ready)
        return is_behind or waiting > STREAM_AHEAD or self.results.is_slow

    def drain(self, last: scheduler.LastWord, monotonic: float) -> None:
        """Grant nothing more; `last` is the run's last word here, once what is leased has ended."""
        if self.draining is None:
            self.draining, self.draining_since = last, monotonic

    def was_cut_off(self, monotonic: float) -> None:
        """The worker is restarted under what it runs: its time starts anew."""
        self.begun_at.clear()
        self.draining_since = monotonic

    # ── after a commit ───────────────────────────────────────────────────────────────────────────────────────────

    def folded(self, body: e.Body, *, is_end: bool) -> None:
        """An event of the run was folded; whether it ended a task is known from before.

        What is held beside the state follows, and so does what the run rents.
        """
        self.is_dirty |= graph.may_unfold(self.state, body)
        if self.renter is not None:
            self.renter.act(body)
        if isinstance(body, e.RunChanged):
            self.is_attended |= body.is_detached
        elif isinstance(body, e.StepRouted):
            self._step_routed(body.step)
        elif isinstance(body, e.TaskPrepared | e.TaskRetried):
            self._task_waits(self.state.tasks[body.task])
        elif is_end and isinstance(body, graph.TASK_ENDS):
            self._task_ended(self.state.tasks[body.task])

    def _step_routed(self, step: str) -> None:
        """The step's tasks go another way: the turns at hand that no worker has were made for the old one."""
        for task_id in [t for t in self.turns if self.state.tasks[t].step == step and t not in self.state.leased]:
            del self.turns[task_id]

    def _task_waits(self, task: TaskState) -> None:
        """A task can't run for now: its turn is made again when it can, so that waiting takes no memory.

        No worker has it any more, however long it waits.
        """
        self.begun_at.pop(task.id, None)
        if task.status is Status.prepared and task.id not in self.state.ready and task.id not in self.state.suspects:
            self.turns.pop(task.id, None)

    def _task_ended(self, task: TaskState) -> None:
        """A task reached its end: its turn is dropped, and if it is a row of the output step, it is sent."""
        self.turns.pop(task.id, None)
        self.begun_at.pop(task.id, None)
        if task.step == self._output and not self._is_reduce:
            self.results.add([task.id])

    def step_ended(self) -> None:
        """A step may have completed: a reduce speaks only when its tree has come to its top."""
        if self._is_reduce and not self._sent_reduce and graph.is_complete(self.plan, self.state, self._output_plan):
            self._sent_reduce = True
            self.results.add(task.id for task in graph.results(self.plan, self.state, self._output))

    def end(self) -> None:
        """Nothing more will come; whoever watches gets what is left, then the end."""
        self.is_over = True
        self.over.set()
        self.results.end()

    # ── results ──────────────────────────────────────────────────────────────────────────────────────────────────

    def rows_in_order(self) -> Sequence[TaskState] | None:
        """The tasks whose results are sent, in the order of their rows; `None` for a reduce, which has one."""
        return None if self._is_reduce else self.state.step(self._output).tasks

    def _read(self, task_ids: Sequence[str], with_input: bool) -> list[Record]:
        """The records of the first of these tasks: as many as `CHUNK_BYTES` hold, but one at the least."""
        tasks = [self.state.tasks[task_id] for task_id in task_ids]
        refs = [[ref for ref in (t.output, t.likelihoods, t.input if with_input else None) if ref] for t in tasks]
        sizes = self._contents.sizes({ref for own in refs for ref in own})
        totals = accumulate(sum(sizes.get(ref, 0) for ref in own) for own in refs)
        count = max(1, sum(total <= CHUNK_BYTES for total in totals))
        found = self._contents.find({ref for own in refs[:count] for ref in own})
        return [
            Record(
                task=t,
                output=found.get(t.output or ""),
                input=found.get(t.input or "") if with_input else None,
                likelihoods=found.get(t.likelihoods or ""),
            )
            for t in tasks[:count]
        ]

    def _queue_earlier_results(self) -> None:
        self._output = self.plan.recipe.output
        self._output_plan = self.plan.step(self._output)
        self._is_reduce = self._output_plan.step.reduce is not None
        if self._is_reduce:
            self.step_ended()
        else:
            ended = graph.results(self.plan, self.state, self._output)
            self.results.add(task.id for task in ended if task.status.is_terminal)
