"""The fold of what a run rents: its terms, the verdict in force, the ledger of its containers, and its calls.

Each function is the state after one event, as in `gx.core.projection`, which calls them. Whatever may be spent follows
from events alone, so that a cap outlives every driver.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import msgspec

from gx.core import event as e
from gx.core import ledger
from gx.core.ledger import Container, Ledger
from gx.core.task import CloudLease
from gx.core.terms import Terms
from gx.core.view import RentState, RunState, TaskState


def rent_of(terms: Terms) -> RentState:
    """What a run rents that has just been allowed to."""
    return RentState(terms=terms, ledger=Ledger(cap_usd=_cap(terms)))


def _cap(terms: Terms) -> float:
    """The cap in US dollars: without one nothing may be spent, but what is not spent really needs none."""
    if terms.usd is not None:
        return terms.usd
    return inf if terms.is_rehearsal else 0.0


def can_switch(run: RunState, terms: Terms) -> bool:
    """Whether a run may rent on such terms: what is paid for isn't rehearsed, nor the reverse, while some are alive."""
    rent = run.rent
    return rent is None or not rent.ledger.alive or rent.terms.is_rehearsal == terms.is_rehearsal


def _burst_allowed(run: RunState, body: e.BurstAllowed) -> None:
    if run.rent is None:
        run.rent = rent_of(body.terms)
        return
    rent, settled_usd = run.rent, run.rent.ledger.settled_usd
    if rent.terms.is_rehearsal != body.terms.is_rehearsal:
        settled_usd, rent.other_usd = rent.other_usd, settled_usd
    rent.terms, rent.refused, rent.capped = body.terms, None, None
    rent.ledger = msgspec.structs.replace(rent.ledger, cap_usd=_cap(body.terms), settled_usd=settled_usd)


def _placement_decided(run: RunState, body: e.PlacementDecided) -> None:
    if run.rent is not None:
        run.rent.verdict = body


def container_of(body: e.ContainerReserved) -> Container:
    """A reservation as the ledger has it."""
    return Container(
        id=body.container,
        gpu=body.gpu,
        usd_per_s=body.usd_per_s,
        spawned_s=body.at,
        settled_s=body.at,
        renewed_s=body.at,
        timeout_s=body.timeout_s,
        cold_start_s=body.cold_start_s,
        lease_s=body.lease_s,
        window_s=body.window_s,
    )


def _reserved(run: RunState, body: e.ContainerReserved) -> None:
    if run.rent is not None:
        run.rent.ledger = ledger.spawned(run.rent.ledger, container_of(body))


def _renewed(run: RunState, body: e.ContainersRenewed) -> None:
    if run.rent is not None:
        alive = [one for one in body.containers if one in run.rent.ledger.alive]
        run.rent.ledger = ledger.renewed(run.rent.ledger, alive, body.at)


def _seen(run: RunState, body: e.ContainerSeen) -> None:
    if run.rent is not None and body.container in run.rent.ledger.alive:
        run.rent.ledger = ledger.settled(run.rent.ledger, body.container, body.at)
        run.rent.names[body.container] = body.name
        run.rent.seen_at[body.container] = body.at
        run.rent.refused = None


def _ended(run: RunState, body: e.ContainerEnded) -> None:
    if run.rent is not None:
        run.rent.ledger = ledger.ended(run.rent.ledger, body.container, body.at)
        run.rent.names.pop(body.container, None)
        run.rent.seen_at.pop(body.container, None)


def _refused(run: RunState, body: e.RentRefused) -> None:
    if run.rent is not None:
        run.rent.refused = body


def _cap_reached(run: RunState, body: e.CapReached) -> None:
    if run.rent is not None:
        run.rent.capped = body


RENTING: dict[type, Callable[[RunState, Any], None]] = {
    e.BurstAllowed: _burst_allowed,
    e.PlacementDecided: _placement_decided,
    e.ContainerReserved: _reserved,
    e.ContainersRenewed: _renewed,
    e.ContainerSeen: _seen,
    e.ContainerEnded: _ended,
    e.RentRefused: _refused,
    e.CapReached: _cap_reached,
}


def call_made(run: RunState, task: TaskState, body: e.CallMade) -> None:
    """The attempt has a call by which it is found again."""
    task.lease = CloudLease(call=body.call, gpu=body.gpu)
