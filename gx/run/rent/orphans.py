"""Attempts that an earlier process of the node had in containers, until this one has taken them over.

One that has a call is followed by it; one that has none is submitted again, since nobody knows whether there is a call,
and the containers see to it that only one of two runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from gx.core.message import Turn
from gx.core.ports import RentedWorker
from gx.core.task import CloudLease
from gx.core.view import RunState
from gx.run import scheduler
from gx.run.station import Station

Name = tuple[str, int]


class Orphans:
    """Those of one run, by (task, attempt)."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._left = {(t.id, t.attempt): t.lease for t in run.leased.values() if isinstance(t.lease, CloudLease)}
        self._unwanted = set[Name]()

    def __repr__(self) -> str:
        return f"<Orphans: {len(self._left)}>"

    def __bool__(self) -> bool:
        return bool(self._left)

    @property
    def gpus(self) -> list[str]:
        """What they run on."""
        return [lease.gpu for lease in self._left.values()]

    def cancel(self, name: Name) -> None:
        """That one is to end once it is found again."""
        if name in self._left:
            self._unwanted.add(name)

    def drop(self, name: Name) -> None:
        """That one is given up."""
        self._left.pop(name, None)

    def clear(self) -> None:
        self._left.clear()

    def take_over(self, station: Station, turns: Mapping[str, Turn], may_travel: Callable[[str], bool]) -> list[Name]:
        """Have the worker, which is up, follow them. Which of them need their `turns`, and have none that may leave."""
        worker = cast("RentedWorker", station.worker)
        missing: list[Name] = []
        for name, lease in list(self._left.items()):
            task = self._run.leased.get(name[0])
            if task is not None and (task.attempt != name[1] or name in self._unwanted):
                task = None
            if lease.call:
                station.hold(*name)
                worker.reattach(*name, lease.call)
                if task is None:
                    worker.cancel(*name)
            elif task is not None and name[0] in turns and may_travel(name[0]):
                station.submit(scheduler.own_turn(task, turns[name[0]]))
            else:
                missing.append(name)
                continue
            del self._left[name]
        return missing
