"""What a workspace can let go of: which runs go into an archive, and which files nobody needs.

`choose` decides and is pure; `plan` reads, `carry_out` acts. Nothing that was recorded is dropped: runs move into
archives, where they can still be read. An unfinished run is never moved, for it may be resumed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gx.core.message import Value
from gx.node.footprint import aged, bytes_of, footprint, leftovers, part_of
from gx.run.log import EventLog
from gx.run.log.archive import unnamed
from gx.run.log.compact import Compacted, compact


class Ended(NamedTuple):
    """A run that ended: when (wall-clock seconds), and the bytes that were written for it."""

    run: str
    at: float
    bytes: int


class Plan(Value, frozen=True, kw_only=True):
    """What to archive, and what to remove: `files`, and `copies` of damaged logs, as paths below the folder.

    `unfinished` runs stay whatever their age. `over_bytes` is what is still too much for the quota after all that, if
    the estimate holds.
    """

    runs: tuple[str, ...]
    files: tuple[str, ...]
    copies: tuple[str, ...]
    unfinished: int
    over_bytes: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.runs or self.files or self.copies)


def choose(ended: Sequence[Ended], *, before: float, excess_bytes: int) -> list[Ended]:
    """The runs that ended before that time, and as many later ones, the oldest first, as free the excess."""
    chosen: list[Ended] = []
    for run in sorted(ended, key=lambda run: (run.at, run.run)):
        if run.at < before or sum(one.bytes for one in chosen) < excess_bytes:
            chosen.append(run)
    return chosen


def plan(log: EventLog, *, keep_s: float, quota_bytes: int | None, now: float) -> Plan:
    """What could go. Runs go that ended more than `keep_s` ago, and more of them to meet the quota, if there is one."""
    folder, before = log.folder, now - keep_s
    files = [*leftovers(folder), *unnamed(log), *aged(folder, "node log", before)]
    copies = aged(folder, "damaged copies", before)
    total = sum(part.bytes for part in footprint(folder))
    excess = 0 if quota_bytes is None else total - quota_bytes - sum(map(bytes_of, (*files, *copies)))
    runs = choose(_ended(log), before=before, excess_bytes=excess)
    ((unfinished,),) = log.file.ask("SELECT count(*) FROM runs WHERE status NOT IN ('finished', 'cancelled')")
    return Plan(
        runs=tuple(run.run for run in runs),
        files=tuple(str(path.relative_to(folder)) for path in files),
        copies=tuple(str(path.relative_to(folder)) for path in copies),
        unfinished=unfinished,
        over_bytes=max(0, excess - sum(run.bytes for run in runs)),
    )


def carry_out(log: EventLog, plan: Plan, *, keeps_results: bool) -> Compacted | None:
    """Remove and archive what the plan says, and close `log` if it archives. :raises LogError: as `compact`.

    Somebody may have thought about the plan for long, and another have carried out one like it: what became the log's
    since then stays, and runs that are archived by now are passed over. The removing comes first: an archive that is
    made now may have the name of one that a kill left behind.
    """
    still = {*leftovers(log.folder), *unnamed(log)}
    for path in (log.folder / name for name in plan.files):
        if path in still or part_of(path.name) == "node log":
            _remove(path)
    for name in plan.copies:
        _remove(log.folder / name)
    ended = {run.run for run in _ended(log)}
    runs = [run for run in plan.runs if run in ended]
    return compact(log, runs, keeps_results=keeps_results) if runs else None


def _ended(log: EventLog) -> list[Ended]:
    rows = log.file.ask(
        """SELECT r.run, epoch(r.ended), coalesce(w.bytes, 0) + coalesce(c.bytes, 0) FROM runs r
        LEFT JOIN (SELECT run, sum(strlen(data) + 150)::BIGINT AS bytes FROM events GROUP BY run) w USING (run)
        LEFT JOIN (SELECT e.run, sum(c.size)::BIGINT AS bytes FROM contents c JOIN events e USING (seq) GROUP BY e.run)
            c USING (run)
        WHERE r.status IN ('finished', 'cancelled')"""
    )
    return [Ended(run, float(at), int(size)) for run, at, size in rows]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
