"""What happened to the log, its owner and the benches."""

from __future__ import annotations

from gx.core.bodies.blob import Ref
from gx.core.message import Counts, Value


class LogOpened(Value, frozen=True, kw_only=True, tag="log.opened"):
    """The first event of a file. `previous` is the last hash of the file that it continues."""

    format: int
    gx: str
    previous: str | None = None


class LogArchived(Value, frozen=True, kw_only=True, tag="log.archived"):
    """Events `first` to `last` stand in the archive `name`, whose last hash is `hash`; the file goes on after them.

    `runs` is a blob: the runs that stand there only, as the view `runs` had them.
    """

    name: str
    first: int
    last: int
    hash: str
    runs: Ref


class NodeStarted(Value, frozen=True, kw_only=True, tag="node.started"):
    """A process took the workspace. `epoch` grows with each owner, so that an older one's leases are void."""

    epoch: int
    pid: int
    host: str = ""


class NodeStopped(Value, frozen=True, kw_only=True, tag="node.stopped"):
    epoch: int


class BenchStarted(Value, frozen=True, kw_only=True, tag="bench.started"):
    worker: str
    epoch: int
    incarnation: int
    pid: int
    slots: int
    engine: str = ""


class BenchExited(Value, frozen=True, kw_only=True, tag="bench.exited"):
    worker: str
    epoch: int
    incarnation: int
    reason: str


class BenchMeasured(Counts, frozen=True, kw_only=True, tag="bench.measured"):
    """What a bench did while a run went on, since the run's last such event, and what was in use at its end.

    They are amounts, so those of a run add up, over resumptions and new benches as well; paces follow from the sums.
    Runs that go on at the same time share the bench, and each has all that it did: don't add up over runs.

    One is written with the first reading of a run, then at most one in 30 s, and one as the run or its bench ends.
    What a bench did in the last seconds before it was killed is in none.
    """

    run: str
    worker: str
    epoch: int
    incarnation: int
    slots: int = 0
    slots_busy: int = 0
    threads: int = 0


class ContentErased(Value, frozen=True, kw_only=True, tag="content.erased"):
    """Blobs were removed at somebody's wish; their digests stay, so the chain still verifies.

    `also` are other runs that lost content by it, having had the same.
    """

    blobs: tuple[Ref, ...]
    subject: str
    run: str | None = None
    task: str | None = None
    also: tuple[str, ...] = ()
