"""What benches did while runs went on: readings, of which there are many, become events, of which there are few.

A reading has all that a bench did since it came up; an event has what was done since the run's last one. This file
takes the differences, and knows no clock: instants are given to it. What it holds doesn't outlive the process.

Invariant: the events of a run add up to what its benches said they did from its start to its end.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from gx.core.event import BenchMeasured
from gx.core.figures import minus, plus
from gx.core.message import Counts
from gx.core.ports import BenchReading
from gx.core.protocol import Measured

WRITE_EVERY_S = 30.0
"""How seldom a run that goes on gets such an event: 120 of them an hour, of half a kilobyte."""


class Meter:
    """The amounts that are to be written yet, by run."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._worker, self._incarnation, self._last = "", 0, Measured()
        self._unwritten: dict[str, Counts] = {}
        self._due_s: dict[str, float] = {}

    def read(self, reading: BenchReading, runs: Collection[str], *, worker: str, now_s: float) -> list[BenchMeasured]:
        """A bench was read while these runs went on; what is to be written now. `now_s` is monotonic."""
        if reading.incarnation != self._incarnation:
            self._last = Measured()
        did = minus(reading.measured.counts, self._last.counts)
        self._worker, self._incarnation, self._last = worker, reading.incarnation, reading.measured
        for run in runs:
            self._unwritten[run] = plus(self._unwritten.get(run, Counts()), did)
        due = [run for run in runs if now_s >= self._due_s.get(run, now_s)]
        self._due_s.update(dict.fromkeys(due, now_s + WRITE_EVERY_S))
        return self.rest(due)

    def rest(self, runs: Collection[str]) -> list[BenchMeasured]:
        """What is unwritten of these runs: their bench ended."""
        taken = ((run, self._unwritten.pop(run, Counts())) for run in runs)
        return [self._event(run, counts) for run, counts in taken if counts != Counts()]

    def end(self, run: str) -> list[BenchMeasured]:
        """What is unwritten of a run that ends."""
        self._due_s.pop(run, None)
        return self.rest([run])

    def _event(self, run: str, counts: Counts) -> BenchMeasured:
        return BenchMeasured(
            **msgspec.structs.asdict(counts),
            run=run,
            worker=self._worker,
            epoch=self._epoch,
            incarnation=self._incarnation,
            slots=self._last.slots,
            slots_busy=self._last.slots_busy,
            threads=self._last.threads,
        )
