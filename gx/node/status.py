"""What a node does now, in figures: its live runs, its benches, what the runs rent."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from gx import __version__
from gx.core.figures import figures
from gx.core.message import Value
from gx.core.view import BenchState, RunStatus
from gx.node.client import Progress
from gx.node.renting import RentedNow, rented_now
from gx.node.standing import waits_for_person

if TYPE_CHECKING:
    from gx.node.attached import LocalRun
    from gx.node.local import LocalNode


class RunStatusNow(Value, frozen=True, kw_only=True, omit_defaults=False):
    """A live run. `backlog` are tasks that are not leased, those of paused steps too.

    `left_s` is None while nothing can be foretold.
    """

    run: str
    name: str
    status: str
    clients: int
    is_detached: bool
    priority: float
    concurrency: int | None
    progress: Progress
    backlog: int
    tokens_per_s: float | None
    left_s: float | None


class BenchNow(Value, frozen=True, kw_only=True, omit_defaults=False):
    """A bench that is up, as of its last reading."""

    worker: str
    engine: str
    slots: int
    slots_busy: int
    threads: int
    prompt_tokens_per_s: float | None
    written_tokens_per_s: float | None
    cached_share: float | None
    mean_queue_s: float | None


class NodeStatus(Value, frozen=True, kw_only=True, omit_defaults=False):
    """The node: its process, its runs, its benches and what is rented. `usd` is what its live runs really spent.

    One that `is_leaving` takes up no run any more.
    """

    pid: int
    gx: str
    workspace: str
    epoch: int
    seq: int
    stays: bool
    is_leaving: bool = False
    usd: float = 0.0
    runs: tuple[RunStatusNow, ...] = ()
    benches: tuple[BenchNow, ...] = ()
    rented: tuple[RentedNow, ...] = ()


def status_of(node: LocalNode, *, stays: bool, is_leaving: bool) -> NodeStatus:
    """The node as it is now."""
    live = [run for run in node.runs.values() if not run.active.is_over]
    now_s = node.clock.now()
    rented = tuple(one for run in live if (one := rented_now(run.state, now_s, slots=_slots(run))) is not None)
    read = node.previews.read  # seconds old, where the last event of a bench may be half a minute old

    def bench_now(bench: BenchState) -> BenchNow:
        busy = (bench.slots_busy if read is None else read.slots_busy) if live else 0
        return BenchNow(
            worker=bench.worker,
            engine=bench.engine,
            slots=max(node.bench.slots(bench.slots), busy),  # turns of several lengths may have more than those of one
            slots_busy=busy,
            threads=bench.threads,
            **msgspec.structs.asdict(figures(bench.lately)),
        )

    return NodeStatus(
        pid=os.getpid(),
        gx=__version__,
        workspace=str(node.log.folder),
        epoch=node.view.epoch,
        seq=node.log.last_seq,
        stays=stays,
        is_leaving=is_leaving,
        usd=sum(run.state.rent.paid_usd for run in live if run.state.rent is not None),
        rented=rented,
        runs=tuple(map(_run, live)),
        benches=tuple(map(bench_now, node.view.benches.values())),
    )


def _slots(run: LocalRun) -> int:
    """How many attempts its containers compute at once; 0 while none is asked for."""
    worker = None if run.active.renter is None else run.active.renter.worker
    return 0 if worker is None else worker.capacity().slots


def _run(run: LocalRun) -> RunStatusNow:
    state, progress = run.state, run.progress()
    return RunStatusNow(
        run=state.id,
        name=state.created.name,
        status=_word(run),
        clients=run.n_clients,
        is_detached=state.is_detached,
        priority=state.priority,
        concurrency=state.concurrency,
        progress=progress,
        backlog=len(state.ready) + len(state.delayed) + len(state.suspects) + len(state.unprepared) + len(state.parked),
        tokens_per_s=run.tempo.tokens_per_s(),
        left_s=run.tempo.left_s(progress),
    )


def _word(run: LocalRun) -> str:
    if run.active.draining is not None:
        return "draining"
    if run.state.is_paused:
        return "paused"
    if waits_for_person(run.state):
        return "waiting"
    return RunStatus.running.value if run.is_attended else "unattended"
