"""Turns that wait for a call at the landlord's: the calls are made in order, some at once, as long as somebody pays.

It makes calls and follows none. Invariant: each turn that was added comes back as a call (`on_call`), is dropped, or
waits; a call that is made for one that was dropped meanwhile is handed out as a stray; and what may have a call that
nobody knows is not given back to run elsewhere, but asked for again: containers see to it that only one of two runs.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import anyio

from cloud.calls import AT_ONCE, Calls, Name, each
from cloud.rented import Refused
from gx.core.errors import CloudError
from gx.core.ledger import LEASE_S
from gx.core.message import Turn

_LONGEST_BACKOFF_S = 30.0
_SPAWN_S = 10.0
"""How long a spawn may take to be answered: a long prompt goes up as a file first."""
UNSURE_S = LEASE_S
"""How long an attempt whose spawn was not answered is kept from other machines: its call may be begun, if there is one.
That may come later too, as long as somebody pays; but for as long as something is lent, somebody does.
"""


class Spawning:
    """Begins what waits, whenever it `may_begin`; `payload_of` a turn is what its call is given, which runs for
    `timeout_s` at most. It is begun as long as somebody pays: `paid_until`, by the clock of `now`.

    `on_call` is told the call of an attempt, `on_stray` one that nobody wants, `on_refusal` why none is made, once in a
    row.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        may_begin: Callable[[], bool],
        paid_until: Callable[[], float],
        payload_of: Callable[[Turn], bytes],
        on_call: Callable[[Name, str], None],
        on_stray: Callable[[Name, str], None],
        on_refusal: Callable[[str], None],
        timeout_s: float = 0.0,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._calls, self._payload_of = calls, payload_of
        self._may_begin, self._paid_until = may_begin, paid_until
        self._on_call, self._on_stray, self._on_refusal = on_call, on_stray, on_refusal
        self._timeout_s, self._now, self._monotonic = timeout_s, now, monotonic
        self._waiting: OrderedDict[Name, Turn] = OrderedDict()
        self._under_way: set[Name] = set()
        self._asked: dict[anyio.Event, anyio.CancelScope] = {}
        """Spawns that are under way, by what is set once they are answered."""
        self._is_unsure = False
        self._unsure: dict[Name, float] = {}
        """Attempts whose last spawn was not answered, and until when they are asked for again and not given back."""
        self._unknown: dict[Name, float] = {}
        """Those that no call has answered for since, and until when one that nobody knows may be begun, or longer."""
        self._has_work = anyio.Event()
        self._backoff_s = 0.0
        self.rest_s = 0.0
        """How long nothing is begun after each round."""
        self.n_made = 0
        """How many calls were made, or may have been."""

    def __repr__(self) -> str:
        return f"<Spawning: {len(self._waiting)} waiting, {len(self._under_way)} under way>"

    @property
    def is_clear(self) -> bool:
        """Whether no call is being made, nor may any run that nobody knows."""
        begun_until = max((self._paid_until(), *self._unknown.values()))
        may_run = bool(self._unknown) and begun_until + self._timeout_s > self._now()
        return not self._asked and not self._is_unsure and not may_run

    @property
    def under_way(self) -> list[Name]:
        """The attempts whose calls are being made."""
        return list(self._under_way)

    def may_be_made(self, name: Name) -> bool:
        """Whether an attempt may have a call that nobody knows."""
        return self._unsure.get(name, 0.0) > self._monotonic()

    def answered_for(self, name: Name) -> None:
        """A call said what became of an attempt, or which other one has it: none is left that nobody knows."""
        self._unknown.pop(name, None)

    def add(self, turn: Turn) -> None:
        """Make a call for it, once that may be."""
        self._waiting[turn.task, turn.attempt] = turn
        self._has_work.set()

    def look(self) -> None:
        """There may be something to begin now."""
        self._has_work.set()

    def drop(self, name: Name) -> bool:
        """Make no call for that attempt; whether it had none yet."""
        is_known = self._waiting.pop(name, None) is not None or name in self._under_way
        self._under_way.discard(name)
        return is_known

    def drop_last(self, most: int | None = None) -> list[Name]:
        """Drop so many that wait, the last first, or all of them; none that may have a call."""
        chosen = [name for name in reversed(self._waiting) if not self.may_be_made(name)][:most]
        for name in chosen:
            del self._waiting[name]
        return chosen

    def clear(self) -> None:
        """Drop all."""
        self._waiting.clear()
        self._under_way.clear()

    async def answered(self) -> None:
        """Wait until each call that is being made is."""
        for answered in list(self._asked):
            await answered.wait()

    def give_up(self) -> None:
        """Wait no longer for calls that are being made: whether they are, nobody knows."""
        self._is_unsure = bool(self._asked)
        for asking in self._asked.values():
            asking.cancel()

    async def serve(self) -> None:
        """Begin what waits."""
        while True:
            self._has_work = anyio.Event()
            chosen = list[Turn]()
            may_begin = self._may_begin()
            while may_begin and self._waiting and len(chosen) < AT_ONCE:
                name, turn = self._waiting.popitem(last=False)
                self._under_way.add(name)
                chosen.append(turn)
            if not chosen:
                with anyio.move_on_after(1.0 if self._waiting else None):
                    await self._has_work.wait()
                continue
            await each(self._spawn, chosen)
            await anyio.sleep(max(self._backoff_s, self.rest_s))

    async def _spawn(self, turn: Turn) -> None:
        name = (turn.task, turn.attempt)
        payload = self._payload_of(turn)
        answered = anyio.Event()
        call, reason, may_be_made = "", "there is no answer", True
        try:
            with anyio.move_on_after(_SPAWN_S, shield=True) as self._asked[answered]:  # or nobody knew of the call
                call = await self._calls.spawn(payload)
        except Refused as error:
            reason, may_be_made = str(error), False
        except CloudError as error:  # one that has a code was refused, another may be of the way there or back
            reason, may_be_made = error.message, error.code == CloudError.code
        self.n_made += bool(call) or may_be_made
        if not call:
            if may_be_made:
                self._unsure[name] = self._monotonic() + UNSURE_S
                self._unknown[name] = self._now() + UNSURE_S
            self._put_off(name, turn, reason)
        elif name in self._under_way:
            self._backoff_s = 0.0
            self._under_way.discard(name)
            self._unsure.pop(name, None)
            self._on_call(name, call)
        else:  # it was given up meanwhile
            self._on_stray(name, call)
        del self._asked[answered]
        answered.set()

    def _put_off(self, name: Name, turn: Turn, reason: str) -> None:
        if not self._backoff_s:
            self._on_refusal(reason)
        self._backoff_s = min(_LONGEST_BACKOFF_S, max(0.5, 2 * self._backoff_s))
        if name in self._under_way:
            self._under_way.discard(name)
            self._waiting[name] = turn
            self._waiting.move_to_end(name, last=False)
