"""A bench that is kept up: one process after the other, until another one would end as the last ones did.

It knows incarnations and how they end. What a bench says it hands on, and whether it had anything to do it asks: it
doesn't know models or attempts.

Invariant: one process runs at a time. `bench` is that one, from its `Ready` until `on_end` is told how it ended, or
`stop` asks for its end, which is told to nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import anyio
from anyio.abc import TaskStatus

from edge.process import BenchProcess
from gx.core.errors import BenchError
from gx.core.protocol import FromBench, Ready

START_S = 60.0
# A bench that ends so soon, with nothing to do, wasn't killed by its work: another one would end the same way.
_AT_ONCE_S = 5.0
_MOST_DEATHS_AT_ONCE = 5
_MOST_FAILED_STARTS = 3
_BACKOFF_S = 0.1


class End(NamedTuple):
    """How a bench ended, in words. It `was_up` if it was ever ready, and `is_expected` if a restart was asked for.

    It `was_at_once` if it wasn't asked for, and came before any work could have caused it.
    """

    reason: str
    was_up: bool
    is_expected: bool
    was_at_once: bool


class Supervisor:
    """Starts benches with these options and exactly this environment.

    `on_message` is given what a bench says, also its `Ready`, by when `incarnation` counts it. `on_end` is given how
    one ended; whether it `is_busy`, and so may have been killed by its work, is asked right before.
    """

    def __init__(
        self,
        options: Sequence[str],
        env: Mapping[str, str],
        *,
        on_message: Callable[[FromBench], None],
        on_end: Callable[[End], None],
        is_busy: Callable[[], bool],
    ) -> None:
        self._options, self._env = options, env
        self._on_message, self._on_end, self._is_busy = on_message, on_end, is_busy
        self.incarnation = 0
        """How many benches were up so far."""
        self.bench: BenchProcess | None = None
        """The one that is up."""
        self._launched: BenchProcess | None = None  # the one that runs, be it up yet or not
        self._up_s = 0.0
        self._error: BenchError | None = None
        self._is_stopping = self._is_restarting = False
        self._changed = anyio.Event()

    def __repr__(self) -> str:
        return f"<Supervisor: bench {self.incarnation} {'up' if self.bench else 'down'}>"

    async def serve(self, *, task_status: TaskStatus[None]) -> None:
        """Keep a bench up until `stop`; started once the first one is up. A bench has a minute for that.

        :raises BenchError: if another one would end as the last ones did, with the last one's last words.
        """
        try:
            await self._keep_up(task_status)
        except BenchError as error:
            self._error = error
            self._announce()
            raise

    async def up(self) -> BenchProcess:
        """The bench that is up, or the next one. :raises BenchError: if there will be none."""
        while self.bench is None:
            if self._error is not None or self._is_stopping:
                raise self._error or BenchError("the worker is closed")
            await self._changed.wait()
        return self.bench

    def restart(self, reason: str) -> None:
        """End the bench that is up; another one follows."""
        if self.bench is not None:
            self._is_restarting = True
            self.bench.kill(reason)

    async def stop(self) -> None:
        """End the bench that runs: close its pipe, and kill it after two seconds. No other one follows."""
        self._is_stopping, self.bench = True, None
        self._announce()
        if self._launched is not None:
            await self._launched.stop()

    async def _keep_up(self, task_status: TaskStatus[None]) -> None:
        """Start one bench after the other. :raises BenchError: if another one would end as the last ones did."""
        deaths_at_once = failed_starts = 0
        while not self._is_stopping:
            bench = await self._live(task_status)
            if self._is_stopping:
                return
            end = self._bury(bench)
            failed_starts = 0 if end.was_up else failed_starts + 1
            deaths_at_once = deaths_at_once + 1 if end.was_at_once else 0
            if failed_starts and (bench.lacks_engine or failed_starts == _MOST_FAILED_STARTS):
                raise bench.start_error(end.reason, failed_starts)
            if deaths_at_once >= _MOST_DEATHS_AT_ONCE:
                times = f"{deaths_at_once} times in a row as soon as it ran"
                raise BenchError(f"the bench ended {times}, the last time: {end.reason}")
            if deaths_at_once:
                await anyio.sleep(_BACKOFF_S * 2 ** (deaths_at_once - 1))

    async def _live(self, task_status: TaskStatus[None]) -> BenchProcess:
        """Run one bench from start to end. :raises BenchError: if it can't be executed."""
        bench = self._launched = await BenchProcess.start(self._options, self._env)
        if self._is_stopping:  # meanwhile
            await bench.stop()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_start, bench)
            await bench.talk(lambda message: self._hear(bench, message, task_status))
            tasks.cancel_scope.cancel()
        return bench

    async def _watch_start(self, bench: BenchProcess) -> None:
        await anyio.sleep(START_S)
        if self.bench is not bench:
            bench.kill(f"killed, because it wasn't ready within {START_S:g} s")

    def _hear(self, bench: BenchProcess, message: FromBench, task_status: TaskStatus[None]) -> None:
        if self._is_stopping and isinstance(message, Ready):
            return  # it came up while it was asked to end
        if isinstance(message, Ready):
            self.bench, self._up_s = bench, time.monotonic()
            self.incarnation += 1
            self._announce()
        self._on_message(message)
        if isinstance(message, Ready) and self.incarnation == 1:
            task_status.started()

    def _bury(self, bench: BenchProcess) -> End:
        was_up, is_expected = self.bench is bench, self._is_restarting
        was_at_once = not was_up or (not self._is_busy() and time.monotonic() - self._up_s < _AT_ONCE_S)
        end = End(
            reason=bench.reason or "for no known reason",
            was_up=was_up,
            is_expected=is_expected,
            was_at_once=was_at_once and not is_expected,
        )
        self.bench, self._is_restarting = None, False
        self._on_end(end)
        return end

    def _announce(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
