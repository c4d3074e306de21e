"""A run's containers as the events tell of them, what each has cost so far, and what they answered together.

A container costs from its reservation to its end, or to when it was last seen, as `gx spend` counts. Which of them
answered what is in no event: their answers are counted together.
"""

from __future__ import annotations

from collections import deque

from gx.core import event as e

WORKER = "cloud"
"""What events of attempts in containers name as their worker."""
PACE_S = 30.0
"""Of the past, for the pace of containers: their answers come many at a time."""


class Container:
    """A rented container. Instants are wall-clock seconds; `name` is its landlord's, once it was seen."""

    def __init__(self, body: e.ContainerReserved, *, is_rehearsal: bool) -> None:
        self.is_rehearsal = is_rehearsal
        self.id, self.gpu, self.usd_per_s = body.container, body.gpu, body.usd_per_s
        self.reserved_s, self.seen_s = body.at, body.at
        self.name, self.state = "", "starting"

    @property
    def usd(self) -> float:
        """What it cost up to when it was last heard of."""
        return self.usd_per_s * max(0.0, self.seen_s - self.reserved_s)

    def age_s(self, now_s: float) -> float:
        """How long it has been paid for."""
        return max(0.0, (self.seen_s if self.state == "ended" else now_s) - self.reserved_s)


class Rented:
    """What a run rents: its cap in US dollars (None without leave to spend) and its containers, by id.

    `is_rehearsal` is said of its present terms; what was rented on earlier ones may be of the other sort.
    """

    def __init__(self) -> None:
        self.cap_usd: float | None = None
        self.is_rehearsal = False
        self.containers: dict[str, Container] = {}
        self.answers = 0
        self._lately: deque[tuple[float, int]] = deque()

    @property
    def alive(self) -> list[Container]:
        """Those that have not ended, the oldest first."""
        return [one for one in self.containers.values() if one.state != "ended"]

    @property
    def usd(self) -> float:
        """What it has cost. What was rehearsed costs nothing, whatever the terms are now."""
        return sum(one.usd for one in self.containers.values() if not one.is_rehearsal)

    def answered(self, at_s: float, tokens: int) -> None:
        """An attempt in a container ended, with so many tokens, prompt and answer together."""
        self.answers += 1
        self._lately.append((at_s, tokens))
        while self._lately[0][0] < at_s - PACE_S:
            self._lately.popleft()

    def tokens_per_s(self, now_s: float) -> float:
        """What they answered lately, in tokens a second; 0 where that was nothing."""
        return sum(tokens for at_s, tokens in self._lately if at_s > now_s - PACE_S) / PACE_S

    def apply(self, body: e.Body) -> None:
        """Follow an event; one that is about nothing rented changes nothing."""
        if isinstance(body, e.RunCreated) and body.burst is not None:
            self.cap_usd, self.is_rehearsal = body.burst.usd, body.burst.is_rehearsal
        elif isinstance(body, e.BurstAllowed):
            self.cap_usd, self.is_rehearsal = body.terms.usd, body.terms.is_rehearsal
        elif isinstance(body, e.ContainerReserved):
            self.containers.setdefault(body.container, Container(body, is_rehearsal=self.is_rehearsal))
        elif isinstance(body, e.ContainerSeen | e.ContainerEnded) and (one := self.containers.get(body.container)):
            one.seen_s = max(one.seen_s, body.at)
            if isinstance(body, e.ContainerEnded):
                one.state = "ended"
            elif one.state != "ended":
                one.state, one.name = "up", body.name
