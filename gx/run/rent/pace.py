"""What a run's containers really do a second, and take to start: it replaces what was assumed of them.

It hears of answers and knows no clock but theirs. Nothing of it outlives the process: a new one measures anew, from
when it began to listen.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gx.core.ports import ContainerSeen
from gx.core.task import Offer

LEAST_ANSWERS = 8
LEAST_UP_S = 10.0
"""So much must have been seen before it counts: the first answers come after a model was loaded."""


class RentedPace:
    """The pace of one of the containers of one kind. `since_s` is the wall-clock instant from which it listens."""

    def __init__(self, since_s: float) -> None:
        self._since_s = since_s
        self._up: dict[str, tuple[float, float]] = {}
        self._answers = self._tokens = 0
        self._start_s = 0.0

    def __repr__(self) -> str:
        return f"<RentedPace {self._tokens} tokens in {self._up_s:.0f} s of {len(self._up)} containers>"

    def seen(self, event: ContainerSeen) -> None:
        """A container was up until then."""
        began_s = max(event.began_at, self._since_s)
        last_s = max(event.seen_at, self._up.get(event.container, (0.0, 0.0))[1])
        self._up[event.container] = (began_s, last_s)

    def started(self, took_s: float) -> None:
        """A container was up so long after it had been reserved. The longest start counts: one more may be as slow."""
        self._start_s = max(self._start_s, took_s)

    def answered(self, tokens: int) -> None:
        """A container's attempt ended, with so many tokens, prompt and answer together."""
        self._answers += 1
        self._tokens += tokens

    @property
    def _up_s(self) -> float:
        return sum(max(0.0, last_s - began_s) for began_s, last_s in self._up.values())

    def tokens_per_s(self, under_way: float) -> float | None:
        """What one container does, with the tokens that are `under_way` in all; `None` as long as that is a guess."""
        if self._answers < LEAST_ANSWERS or self._up_s < LEAST_UP_S:
            return None
        return (self._tokens + under_way) / self._up_s

    def corrected(self, offers: Iterable[Offer], gpu: str, under_way: float) -> list[Offer]:
        """The offers by what was measured of `gpu`. The others by the same ratio: what made it slower than its memory
        would have it, as prompts or few slots do, makes them slower too. What they take to start is not known by that;
        nor is what is reserved for a start changed: only the limit that the landlord keeps is one.
        """
        found = [self._as_it_starts(offer) if offer.gpu == gpu else offer for offer in offers]
        measured = self.tokens_per_s(under_way)
        assumed = next((offer.tokens_per_s for offer in found if offer.gpu == gpu), 0.0)
        if measured is None or assumed <= 0:
            return found
        return [
            msgspec.structs.replace(
                offer,
                tokens_per_s=offer.tokens_per_s * measured / assumed,
                tasks=self._answers if offer.gpu == gpu else 0,
            )
            for offer in found
        ]

    def _as_it_starts(self, offer: Offer) -> Offer:
        """An offer of the kind that is rented, with the start that was measured, if one was."""
        if not self._start_s:
            return offer
        return msgspec.structs.replace(offer, cold_start_s=min(self._start_s, offer.start_limit_s or self._start_s))
