"""Edge or cloud: when to rent containers, of which GPU and how many, and when to let them go again. Pure.

`decide` weighs every offer and number of containers by the fluid time to the end and by what that costs. With a
deadline it takes the cheapest choice that meets it; without one, or where none does, the one that is done first within
the money. It changes its mind only for a gain worth a start (hysteresis), and says in a sentence why.

It knows no clock, cloud or ledger. Money comes in as what may be spent yet and what may be reserved yet; whoever keeps
the cap's ledger is asked before every spawn all the same. Tokens are prompts and answers together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import ceil, inf, isfinite

from gx.core.message import Value
from gx.core.task import Offer
from gx.core.words import duration
from gx.run.fluid import Flow, finish_s

DEADLINE_SHARE = 0.9
"""Of the time to the deadline that a plan may take: the rest is for what the fluid time leaves out."""
MONEY_SHARE = 0.92
"""Of the money that a plan may count on. Containers that end before the work does leave it to a slower machine, so a
plan that only just fits is a bad one. Chosen on the traces of tests/bench/placement: 0.85 misses work that the money
would have bought, and with 0.95 the money ends first on some.
"""
SAME = 1.01
"""Times that differ by less are the same, and the cheaper choice is taken."""
UNSURE = 1.05
"""Times, and costs, that are the same of an offer whose pace nobody has measured yet; of those the most containers are
taken. Where money ends before the work does, few and many take nearly as long, and are right alike if all was assumed
well; if there is less to do than was assumed, many are.
"""
GAIN = 0.05
"""What a change of mind must save, of the time to the end; a number that flickers would pay starts for nothing."""
LEAST_GAIN_S = 5.0
GAIN_USD = 0.25
"""Of the money to come that a change must save, where it saves no time: letting go costs an idle tail."""
EASE = 0.8
"""Of the time for a plan that a cheaper one may take in place of a dearer one that is under way. A measured pace wavers
by a tenth either way, so what only just meets the deadline now would miss it at the next look, and pay another start.
"""
MOST_WEIGHED = 64
"""Numbers of containers that are weighed one by one; above that, in steps."""


class Figures(Value, frozen=True, kw_only=True):
    """What a decision rests on, as of now.

    `backlog_tokens` are predicted for tasks that no bench has begun, `private_tokens` of them may not leave here;
    `edge_tokens` and `cloud_tokens` are left of those that run. `containers` of `gpu` are alive, `starting` of them for
    `start_left_s` more. `spendable_usd` is the cap without what is spent, `reservable_usd` without the exposure; `None`
    is no cap. `deadline_s` is how long there is.
    """

    backlog_tokens: float
    private_tokens: float = 0.0
    edge_tokens: float = 0.0
    cloud_tokens: float = 0.0
    edge_tokens_per_s: float
    is_edge_measured: bool = False
    deadline_s: float | None = None
    spendable_usd: float | None = None
    reservable_usd: float | None = None
    max_containers: int = 1
    gpu: str = ""
    containers: int = 0
    starting: int = 0
    start_left_s: float = 0.0


class Verdict(Value, frozen=True, kw_only=True):
    """So many containers of a GPU, 0 for the edge alone, and what is expected of it.

    `finish_s` is the time to the end with it, `edge_s` without any container, `usd` what it costs from now on.
    """

    gpu: str = ""
    containers: int = 0
    finish_s: float = 0.0
    edge_s: float = 0.0
    usd: float = 0.0
    reason: str = ""


def decide(figures: Figures, offers: Sequence[Offer], last: Verdict | None = None) -> Verdict:
    """How many containers of which GPU there should be now. `last` is the verdict in force, which stays where it may.

    Compare `gpu` and `containers` with those of `last`: one event per change.
    """
    usable = _usable(figures, offers)
    choices = [choice for offer in usable for choice in _choices(figures, offer)]
    edge = _edge_only(figures)
    if not _may_go(figures):
        return _said(edge, figures, "nothing waits that may leave this machine")
    if not choices:
        return _said(edge, figures, "no container may be rented within the cap" if offers else "nothing is on offer")
    now = None if last is None else _as_now(figures, usable, last)
    best, why = _best(figures, [edge, *choices], now, unmeasured={offer.gpu for offer in usable if not offer.tasks})
    if now is not None and not _is_worth_it(best, now, figures):
        best = now
    return _said(best, figures, why)


def edge_may_take(task_s: float, verdict: Verdict, *, containers_ready: int) -> bool:
    """Whether the edge should begin a task that takes it `task_s` seconds: not one that outlasts all the rest.

    A machine that is slow for each sequence would hold up the end with the last tasks that it takes, while containers
    that are there have room for them.
    """
    return containers_ready == 0 or task_s <= verdict.finish_s


def taken_back(waits: Sequence[tuple[str, float]], *, free: int, edge_task_s: float) -> list[str]:
    """Which tasks that wait in the cloud the edge should do instead, the last first: those that it ends sooner.

    `waits` are tasks that no container has begun, each with the seconds until the cloud would have done it; `free` is
    how many the edge has room for beside its own backlog.
    """
    gaining = [task for task, ends_s in reversed(waits) if edge_task_s < ends_s]
    return gaining[: max(0, free)]


# ── choices ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _may_go(figures: Figures) -> float:
    return max(0.0, figures.backlog_tokens - figures.private_tokens)


def _usable(figures: Figures, offers: Sequence[Offer]) -> list[Offer]:
    """The offers that may be taken: while containers are alive, theirs alone, so that no two pools are paid for."""
    return [offer for offer in offers if not figures.containers or offer.gpu == figures.gpu]


def _edge_only(figures: Figures) -> Verdict:
    """Without any container but those that are alive, which end what they have begun."""
    left = figures.backlog_tokens + figures.edge_tokens
    edge_s = left / figures.edge_tokens_per_s if figures.edge_tokens_per_s > 0 else inf if left else 0.0
    return Verdict(finish_s=edge_s, edge_s=edge_s)


def _most(figures: Figures, offer: Offer) -> int:
    """How many containers of an offer the cap has room for."""
    if figures.reservable_usd is None or offer.reserve_usd <= 0:
        return figures.max_containers
    more = int(max(0.0, figures.reservable_usd) / offer.reserve_usd)
    return min(figures.max_containers, figures.containers + more)


def _choices(figures: Figures, offer: Offer) -> list[Verdict]:
    """Every number of containers of an offer that there may be."""
    most = _most(figures, offer)
    step = max(1, ceil(most / MOST_WEIGHED))
    edge_s = _edge_only(figures).finish_s
    return [_choice(figures, offer, min(n, most), edge_s) for n in range(step, most + step, step) if most > 0]


def _choice(figures: Figures, offer: Offer, number: int, edge_s: float, *, money_share: float = MONEY_SHARE) -> Verdict:
    """So many containers: the time to the end, and the money, which may end before the work does."""
    kept = min(number, figures.containers)
    starting = min(kept, figures.starting)
    starts_s = [0.0] * (kept - starting) + [figures.start_left_s] * starting + [offer.cold_start_s] * (number - kept)
    ends_s = _ends_s(figures.spendable_usd, offer, number, money_share)
    flows = [Flow(offer.tokens_per_s, *ends) for ends in zip(starts_s, ends_s, strict=True) if ends[0] < ends[1]]
    edge = Flow(figures.edge_tokens_per_s)
    all_tokens = figures.backlog_tokens + figures.edge_tokens + figures.cloud_tokens
    own_tokens = figures.private_tokens + figures.edge_tokens
    done_s = max(finish_s(all_tokens, [edge, *flows]), finish_s(own_tokens, [edge]))
    done_there_s = min(finish_s(_may_go(figures) + figures.cloud_tokens, flows), done_s)
    usd = offer.usd_per_s * sum(min(done_there_s, end_s) + offer.window_s for end_s in ends_s)
    return Verdict(gpu=offer.gpu, containers=number, finish_s=done_s, edge_s=edge_s, usd=usd)


def _ends_s(spendable_usd: float | None, offer: Offer, number: int, share: float) -> list[float]:
    """When each of so many containers must be let go, the last one first, so that the others stay within the cap.

    Each of them needs its reservation beside what is spent. One that is let go leaves its own to those that go on, so
    less and less is left unspent: in the end a single reservation.
    """
    if spendable_usd is None or offer.usd_per_s <= 0:
        return [inf] * number
    spendable_usd *= share
    until_s = max(0.0, spendable_usd - number * offer.reserve_usd) / (number * offer.usd_per_s)
    ends_s = [until_s]
    for others in range(number - 1, 0, -1):
        until_s += min(offer.reserve_usd, spendable_usd / number) / (others * offer.usd_per_s)
        ends_s.append(until_s)
    return ends_s[::-1]


def _best(
    figures: Figures, choices: Sequence[Verdict], now: Verdict | None, unmeasured: Collection[str]
) -> tuple[Verdict, str]:
    """The choice, and why. `now` is the last one as it looks now; of GPUs that are `unmeasured` no pace is known."""
    if figures.deadline_s is not None:
        room_s = DEADLINE_SHARE * figures.deadline_s
        if in_time := [choice for choice in choices if choice.finish_s <= room_s * _ease(choice, now)]:
            best = min(in_time, key=lambda choice: (choice.usd, choice.finish_s))
            return best, f"the cheapest that meets the deadline in {duration(figures.deadline_s)}"
    least_s = min(choice.finish_s for choice in choices)
    soonest = [choice for choice in choices if choice.finish_s <= least_s * SAME]
    best = min(soonest, key=lambda choice: (choice.usd, choice.finish_s))
    if best.gpu in unmeasured and figures.deadline_s is None:
        same = [choice for choice in choices if choice.gpu == best.gpu and choice.usd <= best.usd * UNSURE]
        best = max((c for c in same if c.finish_s <= least_s * UNSURE), key=lambda choice: choice.containers)
    money = "" if figures.spendable_usd is None else f" within the ${figures.spendable_usd:.2f} that may be spent yet"
    if figures.deadline_s is not None:
        return best, f"nothing meets the deadline in {duration(figures.deadline_s)}; this is done first{money}"
    return best, f"it is done first{money}" if best.containers else f"no container would end it sooner{money}"


def _ease(choice: Verdict, now: Verdict | None) -> float:
    """How much of the time for it a choice may take, beside that which is made already."""
    if now is None or (choice.gpu, choice.containers) == (now.gpu, now.containers):
        return 1.0
    return EASE if choice.usd < now.usd else 1.0


def _as_now(figures: Figures, offers: Sequence[Offer], last: Verdict) -> Verdict | None:
    """The last verdict's choice as it looks now, with all of the money: what is under way isn't given up because its
    margin is used. `None` if it can't be had any more.
    """
    if not last.containers:
        return _edge_only(figures)
    offer = next((offer for offer in offers if offer.gpu == last.gpu), None)
    if offer is None or last.containers > _most(figures, offer):
        return None
    return _choice(figures, offer, last.containers, _edge_only(figures).finish_s, money_share=1.0)


def _is_worth_it(best: Verdict, now: Verdict, figures: Figures) -> bool:
    """Whether a change saves enough time, or enough money in no more time; or the deadline."""
    room_s = inf if figures.deadline_s is None else DEADLINE_SHARE * figures.deadline_s
    if now.finish_s > room_s >= best.finish_s:
        return True
    is_in_time = best.finish_s <= max(now.finish_s * SAME, room_s if isfinite(room_s) else 0.0)
    if is_in_time and now.usd - best.usd > GAIN_USD * now.usd:
        return True
    is_late = figures.deadline_s is None or now.finish_s > room_s
    return is_late and now.finish_s - best.finish_s > max(LEAST_GAIN_S, GAIN * now.finish_s)


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _said(choice: Verdict, figures: Figures, why: str) -> Verdict:
    """The verdict with its sentence."""
    pace = f"{figures.edge_tokens_per_s:,.0f} tokens/s {'measured' if figures.is_edge_measured else 'assumed'}"
    alone = f"the edge alone, at {pace}, needs {duration(choice.edge_s)}"
    if not choice.containers:
        text = f"edge only: {alone} for {figures.backlog_tokens + figures.edge_tokens:,.0f} tokens; {why}"
    else:
        noun = "container" if choice.containers == 1 else "containers"
        text = f"{choice.containers} {noun} with {choice.gpu}: {alone}, with them {duration(choice.finish_s)}"
        text += f" for about ${choice.usd:.2f}; {why}"
    return Verdict(
        gpu=choice.gpu if choice.containers else "",
        containers=choice.containers,
        finish_s=choice.finish_s,
        edge_s=choice.edge_s,
        usd=choice.usd,
        reason=text,
    )
