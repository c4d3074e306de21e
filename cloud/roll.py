"""The roll of a run's containers: each has a place on the board where it says that it is up, answers or not.

A container takes the first place that nobody has, as it claims an attempt, and keeps it; so whoever reads the places in
order, up to the first that is empty, has seen all of them. What is said is a preview: nothing but when a container is
taken to be up, and what of its cost is known, depends on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import anyio
import msgspec

from cloud import message as m
from cloud.calls import Calls
from gx.core.errors import CloudError

_log = logging.getLogger(__name__)
SAY_EVERY_S = 10.0
LOOK_EVERY_S = 5.0
SILENT_S = 60.0
"""How long a place is looked at where nothing new is said."""


def place(number: int) -> str:
    """The key of a place, from 0."""
    return f"up/{number}"


async def answer_to(board: m.Board, seat: Callable[[], m.Seat], *, every_s: float = SAY_EVERY_S) -> None:
    """Say that a container is up, from now on until cancelled; what can't be said now is said later."""
    number, name = 0, seat().container
    is_placed = False
    while True:
        try:
            while not is_placed:
                is_placed = await board.claim(place(number), name) == name
                number += not is_placed
            await board.say(place(number), m.pack(seat()))
        except Exception as error:  # noqa: BLE001 - whatever the landlord's board raises: this must not end a container
            _log.warning("can't say that this container is up: %s: %s", type(error).__name__, error)
        await asyncio.sleep(every_s)


class Roll:
    """Reads the roll; `on_seen` is told of each container that said something new while this is read."""

    def __init__(
        self, calls: Calls, on_seen: Callable[[m.Seat], None], *, now: Callable[[], float] = anyio.current_time
    ) -> None:
        self._calls, self._on_seen, self._now = calls, on_seen, now
        self._places: list[tuple[float, float]] = []
        """Of each place that was ever taken: what its container said last, by its clock, and when that was new here."""
        self._is_begun = False

    def __repr__(self) -> str:
        return f"<Roll: {len(self._places)} places>"

    async def serve(self, is_wanted: Callable[[], bool]) -> None:
        """Read it every now and then, as long as somebody wants to know."""
        while True:
            if is_wanted():
                await self.look()
            await anyio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Read it once. What stood there when it was read first may be the last word of one that is gone."""
        for number, (_, since) in enumerate(list(self._places)):
            if self._now() - since < SILENT_S and (seat := await self._read(number)) is not None:
                self._note(number, seat)
        while (seat := await self._read(len(self._places))) is not None:
            self._places.append((seat.now if not self._is_begun else 0.0, self._now()))
            self._note(len(self._places) - 1, seat)
        self._is_begun = True

    def _note(self, number: int, seat: m.Seat) -> None:
        if seat.now > self._places[number][0]:
            self._places[number] = (seat.now, self._now())
            self._on_seen(seat)

    async def _read(self, number: int) -> m.Seat | None:
        try:
            said = await self._calls.said(place(number))
            return None if said is None else m.read_seat(said)
        except (CloudError, msgspec.MsgspecError):
            return None
