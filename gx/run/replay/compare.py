"""Policies side by side: each of them played over the same recorded run.

It knows prices only as offers that it is given. What a container does that no run has measured is assumed from this
machine: so many times as fast, by the bandwidth of its memory, which is what a decode waits for.
"""

from __future__ import annotations

from collections.abc import Mapping

from gx.core.errors import UsageError
from gx.core.gpus import times_a_laptop
from gx.core.message import Value
from gx.core.task import Offer
from gx.run.replay.play import play
from gx.run.replay.recorded import Recorded
from gx.run.replay.trace import Edge, Played, Policy, Rental
from gx.run.replay.wanted import Wanted

CONTAINER_SLOTS = 32


class Outcome(Value, frozen=True, kw_only=True):
    """A policy, how it went, and what was assumed for it."""

    policy: str
    slots: int
    played: Played
    assumed: str = ""


def own(run: Recorded) -> Outcome:
    """The run's own policy, replayed: how far it is from what was measured is how far to trust the others."""
    return Outcome(policy="as it ran", slots=run.slots, played=_play(run, Policy(slots=run.slots), None))


def outcome(run: Recorded, wanted: Wanted, offers: Mapping[str, Offer]) -> Outcome:
    """A policy, played. `offers` are by GPU, without a pace. :raises UsageError: if it would rent no container."""
    slots, burst = wanted.slots or run.slots, wanted.rents
    if burst == "off":
        return Outcome(policy=wanted.text, slots=slots, played=_play(run, Policy(slots=slots), None))
    containers = 1 if wanted.containers is None else wanted.containers
    if not containers:
        raise UsageError(f"policy `{wanted.text}`: burst={burst} with containers=0", hint="burst=off rents nothing")
    offer = offers[wanted.gpu or "L4"]
    rental, assumed = _rental(run, wanted, offer)
    policy = Policy(slots=slots, burst=burst, containers=containers, usd=wanted.usd, deadline_s=wanted.deadline)
    return Outcome(policy=wanted.text, slots=slots, played=_play(run, policy, rental), assumed=assumed)


def _rental(run: Recorded, wanted: Wanted, offer: Offer) -> tuple[Rental, str]:
    if run.rented is not None and wanted.faster is None:
        pace, assumed = run.rented, ""
    else:
        faster = wanted.faster or times_a_laptop(offer.gpu)
        pace = run.pace.faster(faster)
        assumed = f"a container with {offer.gpu} is {faster:g} × as fast as this machine" if not wanted.faster else ""
    start_s = offer.cold_start_s if wanted.start is None else wanted.start
    if wanted.start is None:
        assumed += f"{', and ' if assumed else 'a container '}takes {start_s:g} s to start"
    made = Offer(
        gpu=offer.gpu,
        tokens_per_s=run.trace.tokens_per_s(pace, CONTAINER_SLOTS),
        usd_per_s=offer.usd_per_s,
        cold_start_s=start_s,
        window_s=offer.window_s,
        reserve_usd=offer.reserve_usd,
        source=offer.source,
        date=offer.date,
    )
    return Rental(offer=made, pace=pace, slots=CONTAINER_SLOTS), assumed


def _play(run: Recorded, policy: Policy, rental: Rental | None) -> Played:
    return play(run.trace, policy, Edge(pace=run.pace, slots=policy.slots, startup_s=run.startup_s), rental)
