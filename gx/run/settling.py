"""What follows from a worker's events, with what of them is kept: answers, details of failures, likelihoods.

The rules are `gx.run.outcomes`'; this file knows which run an event is of, and puts its contents where they are kept.
An answer of an attempt that counts no more is not kept: what no event refers to could never be erased.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gx.core import event as e
from gx.core.message import Label
from gx.core.ports import AttemptEnded, BenchDown, BenchReading, BenchUp, WorkerEvent
from gx.core.protocol import Measured, Signal
from gx.core.task import EdgeLease
from gx.run import likelihoods, outcomes, scheduler
from gx.run.active import ActiveRun
from gx.run.contents import Contents
from gx.run.meter import Meter
from gx.run.station import Station


class Settling:
    """Settles the events of all workers of one node epoch for the runs that are `active`, by id.

    `on_signal` is told of previews: what is written, and what a bench is at.
    """

    def __init__(
        self,
        active: Mapping[str, ActiveRun],
        contents: Contents,
        meter: Meter,
        epoch: int,
        on_signal: Callable[[Signal | Measured], None],
    ) -> None:
        self._active, self._contents, self._meter, self._epoch = active, contents, meter, epoch
        self._on_signal = on_signal

    def follow(self, station: Station, event: WorkerEvent, at: scheduler.Moment, blobs: list[e.Blob]) -> list[e.Body]:
        """What follows from an event of a station's worker; what is kept of it is put to `blobs`."""
        station.heard(event)
        worker = station.name
        if isinstance(event, AttemptEnded):
            return self._settle(event, at.wall, blobs, worker)
        if isinstance(event, BenchUp):
            return [outcomes.bench_up(event, worker=worker, epoch=self._epoch)]
        if isinstance(event, BenchDown):
            states = (run.state for run in self._active.values())
            ended = outcomes.bench_down(event, states, worker=worker, epoch=self._epoch, hung=station.hung)
            return [*self._meter.rest(self._active), *ended]
        if isinstance(event, BenchReading):
            self._watch(event.measured, at.monotonic)
            self._on_signal(event.measured)
            return [*self._meter.read(event, self._active, worker=worker, now_s=at.monotonic)]
        if isinstance(event, Signal):
            self._begin(event.task, str(event.attempt), at.monotonic, is_anew=not event.tokens_out)
            self._on_signal(event)
        return []

    def _watch(self, measured: Measured, monotonic: float) -> None:
        """Watch what is in a slot, and not what waits for one again, as between two fields of a choice.

        An engine that does nothing any more gives no reading; its last one may be older than what it has just begun.
        """
        names = {slot.conversation for slot in measured.sequences}
        for run in self._active.values():
            for task_id, begun in list(run.begun_at.items()):
                is_new = monotonic - begun.monotonic < scheduler.WATCH_EVERY_S
                if f"{task_id} {begun.attempt}" not in names and not is_new:
                    del run.begun_at[task_id]
        for name in names:  # a signal may have been dropped
            task_id, _, attempt = name.rpartition(" ")
            self._begin(task_id, attempt, monotonic)

    def _begin(self, task_id: str, attempt: str, monotonic: float, *, is_anew: bool = False) -> None:
        """Watch from now on that an attempt ends in time, unless it is watched. Containers keep their own time.

        `is_anew`: the bench began it, or the next part of it, which has time for itself.
        """
        for run in self._active.values():
            task = run.state.leased.get(task_id)
            if task is None or str(task.attempt) != attempt or not isinstance(task.lease, EdgeLease):
                continue
            known = run.begun_at.get(task_id)
            if is_anew or known is None or known.attempt != task.attempt:
                run.begun_at[task_id] = scheduler.Begun(task.attempt, monotonic)

    def _settle(self, ended: AttemptEnded, now: float, blobs: list[e.Blob], worker: str) -> list[e.Body]:
        run = next((r for r in self._active.values() if ended.task in r.state.tasks), None)
        if run is None:
            return []
        is_stale = outcomes.is_stale(run.state, ended)
        content = None if is_stale else outcomes.content_of(ended.outcome)
        told = None if is_stale else likelihoods.content_of(ended.outcome)
        turn, label = run.turns.get(ended.task), run.state.tasks[ended.task].label
        return outcomes.settle(
            run.state,
            ended,
            now,
            worker=worker,
            retry=run.plan.step(run.state.tasks[ended.task].step).step.retry,
            kept=None if content is None else self._put(content, blobs, label),
            told=None if told is None else self._put(told, blobs, label),
            max_tokens=turn.sampling.max_tokens if turn is not None else None,
        )

    def _put(self, content: bytes, blobs: list[e.Blob], label: Label) -> e.Ref:
        blob = self._contents.put(content, label)
        blobs.append(blob)
        return blob.digest
