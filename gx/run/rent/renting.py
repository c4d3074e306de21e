"""What follows for a run's rented containers: figures for placement, reservations, renewals, and what they cost. Pure.

Functions from a run's state and the time to events; `renter` says when. A *seat* is the room for one container
that the ledger holds; which of the landlord's containers sits there is known once it was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from math import floor, inf, isinf

import msgspec

from gx.core import event as e
from gx.core import ledger
from gx.core.ledger import LEASE_S, Container
from gx.core.ports import ContainerSeen
from gx.core.renting import container_of
from gx.core.task import Offer, Rate
from gx.core.view import RentState, RunState
from gx.run import scheduler
from gx.run.fairness import mean_tokens
from gx.run.placement import Figures, Verdict

SEEN_EVERY_S = 15.0
"""How seldom what a container cost is settled."""
QUIET_S = 20.0
"""How long after its scaledown window a container that has nothing to do is taken to be gone."""
LIVELY_S = 3 * SEEN_EVERY_S
"""How long after it was last seen a container is taken to be up."""


def figures(
    run: RunState,
    rent: RentState,
    *,
    edge: Rate,
    start_left_s: float,
    may_travel: Callable[[str], bool],
    home: Collection[str],
    now: float,
) -> Figures:
    """What a decision rests on. `start_left_s` is how long the containers that start are taken to need yet.

    Tasks that are not prepared are taken to be private as often as those that wait; those that came `home` stay here
    too, and say nothing of others.
    """
    mean = mean_tokens(run)
    waiting = [*run.ready, *run.delayed, *run.suspects]
    others = [task_id for task_id in waiting if task_id not in home]
    n_home = len(waiting) - len(others)
    private = sum(not may_travel(task_id) for task_id in others)
    rented = scheduler.rented(run)
    backlog = len(waiting) + len(run.unprepared)
    share = private / len(others) if others else 0.0
    ends = [run.deadline_at, None if rent.terms.target_s is None else run.created.started_at + rent.terms.target_s]
    left_s = [max(0.0, at - now) for at in ends if at is not None]
    settled, free = rent.ledger.settled_usd, rent.ledger.free_usd
    alive = rent.ledger.alive.values()
    return Figures(
        backlog_tokens=backlog * mean,
        private_tokens=((backlog - n_home) * share + n_home) * mean,
        edge_tokens=(len(run.leased) - rented) * mean / 2,
        cloud_tokens=rented * mean / 2,
        edge_tokens_per_s=edge.tokens_in_per_s + edge.tokens_out_per_s,
        is_edge_measured=edge.tasks > 0,
        deadline_s=min(left_s, default=None),
        spendable_usd=None if isinf(free) else max(0.0, rent.ledger.cap_usd - settled),
        reservable_usd=None if isinf(free) else free,
        max_containers=rent.terms.max_containers,
        gpu=next((one.gpu for one in alive), ""),
        containers=len(rent.ledger.alive),
        starting=len(rent.ledger.alive) - len(rent.names),
        start_left_s=start_left_s,
    )


def decided(run: RunState, verdict: Verdict, seen: Figures) -> e.PlacementDecided:
    """A verdict as the log has it."""
    known = {name: value for name, value in msgspec.structs.asdict(seen).items() if isinstance(value, int | float)}
    return e.PlacementDecided(
        run=run.id,
        verdict="burst" if verdict.containers else "edge",
        reason=verdict.reason,
        gpu=verdict.gpu,
        containers=verdict.containers,
        finish_s=_finite(verdict.finish_s),
        edge_s=_finite(verdict.edge_s),
        usd=verdict.usd,
        figures={name: _finite(float(value)) for name, value in known.items()},
    )


def _finite(value: float) -> float:
    """JSON has no infinity: a time without end is -1."""
    return -1.0 if isinf(value) else value


def verdict_of(body: e.PlacementDecided | None) -> Verdict | None:
    """The verdict in force; only what is compared of it."""
    return None if body is None else Verdict(gpu=body.gpu, containers=body.containers)


def forced(offers: Sequence[Offer], rent: RentState, seen: Figures) -> Verdict:
    """As many containers as the terms allow and the cap has room for, of the cheapest kind, or of that which is alive,
    as long as something waits that may go.
    """
    if seen.backlog_tokens - seen.private_tokens + seen.cloud_tokens <= 0:
        return Verdict(reason="edge only: nothing more waits that may leave this machine")
    usable = [one for one in offers if one.gpu == seen.gpu or not seen.containers]
    if not usable:
        return Verdict(reason="edge only: nothing is on offer")
    offer = min(usable, key=lambda one: one.usd_per_s)
    number = rent.terms.max_containers
    if seen.reservable_usd is not None and offer.reserve_usd > 0:
        more = max(0, floor(seen.reservable_usd / offer.reserve_usd))
        number = min(number, seen.containers + more)
    if not number:
        return Verdict(reason="edge only: no container may be rented within the cap")
    return Verdict(gpu=offer.gpu, containers=number, reason=f"{number} × {offer.gpu}: a burst was asked for")


def reserve(run: RunState, rent: RentState, offer: Offer, number: int, now: float) -> list[e.Body]:
    """Reservations for so many seats more, as far as the cap has room for them."""
    made: list[e.Body] = []
    book = rent.ledger
    for index in range(number):
        seat = e.ContainerReserved(
            run=run.id,
            container=f"c{run.seq}.{index}",
            gpu=offer.gpu,
            usd_per_s=offer.usd_per_s,
            timeout_s=offer.timeout_s,
            cold_start_s=offer.start_limit_s,
            lease_s=LEASE_S,
            window_s=offer.window_s,
            at=now,
        )
        container = container_of(seat)
        if not ledger.may_spawn(book, container):
            break
        book = ledger.spawned(book, container)
        made.append(seat)
    return made


def renew(run: RunState, rent: RentState, now: float) -> list[e.Body]:
    """The driver vouches anew, for all or, where the cap has no room for that, for none: its lease is one for all."""
    alive = list(rent.ledger.alive)
    if not alive or len(ledger.renewable(rent.ledger, now)) < len(alive):
        return []
    return [e.ContainersRenewed(run=run.id, containers=tuple(alive), at=now)]


def seen(run: RunState, rent: RentState, events: Iterable[ContainerSeen]) -> list[e.Body]:
    """Containers gave answers: their seats are settled up to the last of each, where that is worth an event.

    One that has no seat yet takes one in which nobody was seen, or, if there is none, that of the one which was silent
    longest: its place at the landlord's was taken. Who sits there changes nothing of what a seat costs.
    """
    latest = {event.container: event for event in events}
    seats = {name: seat for seat, name in rent.names.items()}
    seen_at = dict(rent.seen_at)
    made: list[e.Body] = []
    for name, event in latest.items():
        seat = seats.get(name)
        if seat is None:
            seat = min(rent.ledger.alive, key=lambda one: seen_at.get(one, -inf), default=None)
        if seat is None or event.seen_at - seen_at.get(seat, -inf) < SEEN_EVERY_S:
            continue
        seen_at[seat] = event.seen_at
        made.append(e.ContainerSeen(run=run.id, container=seat, name=name, began_at=event.began_at, at=event.seen_at))
    return made


def gone(
    run: RunState, rent: RentState, *, idle_since: float | None, called_s: float, began_s: float, now: float
) -> list[e.Body]:
    """The containers that have ended: each, once nothing was under way for longer than it may live so; and those that
    can't be alive by now, whatever happened to them. One that was reserved when the last call had ended never began.

    `called_s` is when a call was under way last, or may have been; `began_s` since when this process looks after them:
    what an earlier one left them with is not known.
    """
    made: list[e.Body] = []
    for seat, container in rent.ledger.alive.items():
        idle_s = inf if idle_since is None else max(idle_since, container.spawned_s)
        if called_s < container.spawned_s:
            at, by = container.spawned_s, min(idle_s + container.window_s + QUIET_S, container.latest_end_s)
        else:
            at = idle_end_s(rent, container, idle_s=idle_s, began_s=began_s)
            by = at if at == container.latest_end_s else at + QUIET_S
        if now >= by:
            made.append(e.ContainerEnded(run=run.id, container=seat, at=at))
    return made


def let_go(
    run: RunState,
    rent: RentState,
    *,
    is_clear: bool,
    idle_since: float | None,
    called_s: float,
    began_s: float,
    now: float,
) -> list[e.Body]:
    """The run has nothing under way here any more, and nobody looks after its containers: they idle, and end.

    Unless the run `is_clear` of calls that could not be cancelled, each is charged all that was reserved for it. One
    that was reserved when the last call had ended never began. Where the run may go on, with the same cap, the most
    that the others may cost yet; of a run that is done, what they are expected to cost.
    """
    made: list[e.Body] = []
    is_done = not run.live and (run.inputs_ended or not run.rows)
    idle_s = now if idle_since is None else idle_since
    for seat, container in rent.ledger.alive.items():
        if not is_clear:
            at = container.latest_end_s
        elif called_s < container.spawned_s:
            at = container.spawned_s
        elif is_done:
            at = min(now + container.window_s, container.latest_end_s)
        else:
            at = idle_end_s(rent, container, idle_s=idle_s, began_s=began_s)
        made.append(e.ContainerEnded(run=run.id, container=seat, at=at))
    return made


def idle_end_s(rent: RentState, container: Container, *, idle_s: float, began_s: float) -> float:
    """By when a container has ended that was given nothing after `idle_s`, and of which all calls were over then.

    One that was not seen of late may only be starting, perhaps in the stead of another. One that an earlier process
    rented may run what that had paid for, and nobody knows of.
    """
    is_up = rent.seen_at.get(container.id, -inf) >= idle_s - LIVELY_S
    busy_s = idle_s if is_up else idle_s + container.cold_start_s
    if container.spawned_s < began_s:
        busy_s = max(busy_s, began_s + container.lease_s + container.timeout_s)
    return min(busy_s + container.window_s, container.latest_end_s)
