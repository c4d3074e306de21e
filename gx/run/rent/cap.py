"""A run at its cap: when that is, and what follows. Pure.

A run is at its cap once none of its containers is alive, none may be reserved, and more money would rent one. What
those that were alive did not use of their reservations makes room again, so it isn't before the last of them has ended.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gx.core import event as e
from gx.core.task import Offer
from gx.core.terms import AT_CAP
from gx.core.view import RentState, RunState
from gx.run import placement
from gx.run.placement import Figures
from gx.run.rent import renting

_QUESTION = "cap-"
_CHOICES = ("local", "stop")


def reached(
    run: RunState, rent: RentState, offers: Sequence[Offer], seen: Figures, *, is_forced: bool, now: float
) -> list[e.Body]:
    """That the cap is reached, and the question that follows where a person is to be asked; nothing if it isn't.

    It is told once for each terms. Without leave to spend anything there is no cap to reach.
    """
    if rent.capped is not None or rent.ledger.alive or not rent.terms.usd or not offers:
        return []
    if any(renting.reserve(run, rent, offer, 1, now) for offer in offers):
        return []
    if not _is_wanted(offers, seen, is_forced=is_forced):
        return []
    least = min(offers, key=lambda offer: offer.reserve_usd)
    told = e.CapReached(
        run=run.id,
        usd=rent.ledger.settled_usd,
        cap_usd=rent.ledger.cap_usd,
        reserve_usd=least.reserve_usd,
        then=rent.terms.at_cap,
    )
    if rent.terms.at_cap != "ask":
        return [told]
    text = f"{said(told)}. Do the rest here (local), or stop?"
    asked = e.QuestionAsked(
        run=run.id, question=f"{_QUESTION}{run.seq}", text=text, choices=_CHOICES, by=f"the cap of {run.created.name}"
    )
    return [told, asked]


def said(capped: e.CapReached) -> str:
    """That a run is at its cap, as a person is told."""
    spent = f"${capped.usd:.4f} of ${capped.cap_usd:.4f} are spent"
    return f"the cap is reached: {spent}, and a container more could cost ${capped.reserve_usd:.4f}"


def note(capped: e.CapReached) -> str:
    """That, and what becomes of the rest."""
    return f"{said(capped)}; {AT_CAP[capped.then]}"


def answered_by_terms(run: RunState, by: str) -> list[e.Body]:
    """New terms are an answer to what was asked at the cap of the old ones."""
    open_ones = [name for name in run.questions if name.startswith(_QUESTION)]
    return [e.QuestionAnswered(run=run.id, question=name, choice=_CHOICES[0], by=by) for name in open_ones]


def _is_wanted(offers: Sequence[Offer], seen: Figures, *, is_forced: bool) -> bool:
    """Whether more money would rent something now."""
    if is_forced:
        return seen.backlog_tokens > seen.private_tokens
    free = msgspec.structs.replace(seen, spendable_usd=None, reservable_usd=None)
    return placement.decide(free, offers).containers > 0
