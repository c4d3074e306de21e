"""What containers are told: how many there may be, and until when somebody pays for what they begin.

Containers compare an instant with their own clocks, so it is told by those: `ahead_s` is how far the one that is ahead
most is known to be ahead of this machine's.

Invariant: nothing counts as told before the landlord took it, and as long as it can't be told, nothing may begin.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import anyio

from cloud.calls import AGAIN_S, Calls
from gx.core.errors import CloudError

_DRIFT_S = 1.0
"""A smaller difference is no news: it makes none of a lease."""


class Telling:
    """Tells on behalf of `driver`; `on_told` is called after, `on_refusal` with why it could not be done."""

    def __init__(
        self, calls: Calls, driver: str, *, on_told: Callable[[], None], on_refusal: Callable[[str], None]
    ) -> None:
        self._calls, self._driver, self._on_told, self._on_refusal = calls, driver, on_told, on_refusal
        self.containers = self._told_containers = 0
        self.until = self._told_until = 0.0
        self.paid_until = 0.0
        """The latest instant that ever was told, or may have been: containers keep to what they know."""
        self.ahead_s = self._told_ahead_s = 0.0
        self._has_news = anyio.Event()

    def scale(self, containers: int) -> None:
        """Tell of another number."""
        self.containers = containers
        self._has_news.set()

    def vouch(self, until: float) -> None:
        """Tell of another instant, in wall-clock seconds."""
        self.until = until
        self._has_news.set()

    def hear(self, said_s: float, now: float) -> None:
        """A container's clock stood there, at this instant here or before."""
        if said_s - now > self.ahead_s + _DRIFT_S:
            self.ahead_s = said_s - now
            self._has_news.set()

    async def withdraw(self) -> None:
        """Pay for nothing that begins from now on, whoever may have been told otherwise; if that can be told now."""
        self.until = self._told_until = 0.0
        with suppress(CloudError):
            await self._calls.vouch(self._driver, 0.0)

    def may_begin(self, now: float) -> bool:
        """Whether containers know that they may be there, and are paid."""
        return self._told_containers > 0 and self._told_until > now

    async def serve(self) -> None:
        """Tell what is to be told, again and again where that fails."""
        while True:
            self._has_news = anyio.Event()
            wanted, until, ahead_s = self.containers, self.until, self.ahead_s
            try:
                if wanted and wanted != self._told_containers:
                    await self._calls.scale(wanted)
                if (until, ahead_s) != (self._told_until, self._told_ahead_s):
                    self.paid_until = max(self.paid_until, until)
                    await self._calls.vouch(self._driver, until + ahead_s)
            except CloudError as error:
                self._on_refusal(error.message)
                await anyio.sleep(AGAIN_S)
                continue
            self._told_containers, self._told_until, self._told_ahead_s = wanted, until, ahead_s
            self._on_told()
            if (self.containers, self.until, self.ahead_s) == (wanted, until, ahead_s):
                await self._has_news.wait()
