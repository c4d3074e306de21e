"""A burst planned on paper: the work on this machine alone, and with so many containers of each GPU, side by side.

Each line is the work played on simulated benches; which of them would be chosen, `gx.run.placement` says with the same
figures as in a run. It knows offers as they are given to it, no prices of its own, no log and no cloud.

Invariant: a line without a container costs nothing, and where nothing may leave the machine there is no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, isfinite

import msgspec

from gx.core.gpus import times_a_laptop
from gx.core.message import Value
from gx.core.task import Offer
from gx.run import placement
from gx.run.placement import Figures, Verdict
from gx.run.replay.compare import CONTAINER_SLOTS
from gx.run.replay.line import Pace
from gx.run.replay.play import play
from gx.run.replay.trace import Edge, Job, Played, Policy, Rental, Trace

MOST_PLAYED = 2_000
"""Tasks that a play has at the most: of more, each one played stands for several. One play takes a part of a second."""


class Scene(Value, frozen=True, kw_only=True):
    """Work that is to be done: the tasks, this machine, and what is known of containers.

    `rented` is a container's pace where one was measured. `is_measured` says whether this machine's was. `deadline_s`
    is how long there is. Its models come to `model_bytes`. `assumed` and `notes` are what a reader must know.
    """

    name: str
    trace: Trace
    edge: Edge
    is_measured: bool = False
    rented: Pace | None = None
    deadline_s: float | None = None
    model_bytes: int = 0
    private_steps: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Choice(Value, frozen=True, kw_only=True):
    """So many containers of a GPU, 0 and "" for this machine alone: the time to the end, and what it costs.

    `tokens_rented` are computed in containers, `tokens_per_s` by one of them. `is_in_time` is None without a deadline.
    """

    gpu: str = ""
    containers: int = 0
    seconds: float
    usd: float = 0.0
    container_s: float = 0.0
    tokens_rented: float = 0.0
    tokens_per_s: float = 0.0
    is_in_time: bool | None = None
    is_chosen: bool = False


class Sheet(Value, frozen=True, kw_only=True):
    """The choices, this machine alone first, and the verdict with its sentence."""

    choices: tuple[Choice, ...]
    verdict: Verdict
    assumed: tuple[str, ...] = ()


def on_paper(scene: Scene, offers: Sequence[Offer], *, most: int, usd: float | None, deadline_s: float | None) -> Sheet:
    """What would come of 1, 2, 4, … up to `most` containers of each offer, whose paces are filled in here."""
    trace, each = thinned(scene.trace, MOST_PLAYED)
    edge = _slower(scene.edge, each)
    rentals = [_rental(scene, offer) for offer in offers]
    verdict = placement.decide(_figures(scene, most, usd, deadline_s), [one.offer for one in rentals])
    tokens = sum(job.tokens for job in scene.trace.jobs)
    made = [_choice(play(trace, Policy(slots=edge.slots), edge), tokens, None, 0)]
    may_leave = any(not job.is_private and job.tokens for job in scene.trace.jobs)
    for rental in rentals if may_leave else ():
        counts = _counts(most, verdict.containers if verdict.gpu == rental.offer.gpu else 0)
        slow = _slower_rental(rental, each)
        for count in counts:
            policy = Policy(slots=edge.slots, burst="always", containers=count, usd=usd, takes_home=True)
            made.append(_choice(play(trace, policy, edge, slow), tokens, rental.offer, count))
    return Sheet(
        choices=tuple(_marked(choice, verdict, deadline_s) for choice in made),
        verdict=verdict,
        assumed=(*scene.assumed, *_assumed(scene, rentals)),
    )


def thinned(trace: Trace, most: int) -> tuple[Trace, int]:
    """At most about so many tasks, each standing for as many as is said: those of a group alike.

    A machine that has so many times the tasks in each slot is so many times as slow: see `_slower`.
    """
    each = ceil(len(trace.jobs) / most)
    if each <= 1:
        return trace, 1
    groups: dict[tuple[str, bool], list[Job]] = {}
    for job in trace.jobs:
        groups.setdefault((job.group, job.is_private), []).append(job)
    kept = [_mean(jobs[n : n + each]) for jobs in groups.values() for n in range(0, len(jobs), each)]
    return Trace(jobs=tuple(kept), after=trace.after), each


def _mean(jobs: list[Job]) -> Job:
    first, n = jobs[0], len(jobs)
    return msgspec.structs.replace(
        first,
        tokens_in=sum(job.tokens_in for job in jobs) / n,
        tokens_cached=sum(job.tokens_cached for job in jobs) / n,
        tokens_out=sum(job.tokens_out for job in jobs) / n,
    )


def _slower(edge: Edge, each: int) -> Edge:
    return edge if each == 1 else msgspec.structs.replace(edge, pace=_slow(edge.pace, each))


def _slower_rental(rental: Rental, each: int) -> Rental:
    return rental if each == 1 else msgspec.structs.replace(rental, pace=_slow(rental.pace, each))


def _slow(pace: Pace, each: int) -> Pace:
    """For tasks that stand for so many: all that one takes, its slot's turn included, so many times."""
    return msgspec.structs.replace(pace.faster(1 / each), row_s=pace.row_s * each)


def _rental(scene: Scene, offer: Offer) -> Rental:
    pace = scene.rented or scene.edge.pace.faster(times_a_laptop(offer.gpu))
    filled = msgspec.structs.replace(
        offer,
        tokens_per_s=scene.trace.tokens_per_s(pace, CONTAINER_SLOTS),
        tasks=CONTAINER_SLOTS if scene.rented is not None else 0,
    )
    return Rental(offer=filled, pace=pace, slots=CONTAINER_SLOTS)


def _figures(scene: Scene, most: int, usd: float | None, deadline_s: float | None) -> Figures:
    """As they are once this machine has what it takes at once: that has begun here, and leaves no more."""
    leases = scene.edge.slots + (scene.edge.slots + 1) // 2  # as edge.worker has it
    first = [job for job in scene.trace.jobs if not scene.trace.after.get(job.group)]
    begun = {job.task for job in first[:leases]}
    jobs = [job for job in scene.trace.jobs if job.task not in begun]
    return Figures(
        backlog_tokens=sum(job.tokens for job in jobs),
        private_tokens=sum(job.tokens for job in jobs if job.is_private),
        edge_tokens=sum(job.tokens for job in first[:leases]),
        edge_tokens_per_s=scene.trace.tokens_per_s(scene.edge.pace, scene.edge.slots),
        is_edge_measured=scene.is_measured,
        deadline_s=deadline_s,
        spendable_usd=usd,
        reservable_usd=usd,
        max_containers=most,
    )


def _counts(most: int, chosen: int) -> list[int]:
    """1, 2, 4, … `most`, and the chosen one."""
    doubled = [1 << n for n in range(most.bit_length()) if 1 << n <= most]
    return sorted({*doubled, most, chosen} - {0})


def _choice(played: Played, tokens: float, offer: Offer | None, count: int) -> Choice:
    tasks = played.edge_tasks + played.cloud_tasks
    share = played.cloud_tasks / tasks if tasks else 0.0
    return Choice(
        gpu=offer.gpu if offer else "",
        containers=count,
        seconds=played.makespan_s,
        usd=played.usd,
        container_s=played.container_s,
        tokens_rented=share * tokens,
        tokens_per_s=offer.tokens_per_s if offer else 0.0,
    )


def _marked(choice: Choice, verdict: Verdict, deadline_s: float | None) -> Choice:
    is_chosen = (choice.gpu, choice.containers) == (verdict.gpu if verdict.containers else "", verdict.containers)
    is_in_time = None if deadline_s is None else isfinite(choice.seconds) and choice.seconds <= deadline_s
    return msgspec.structs.replace(choice, is_chosen=is_chosen, is_in_time=is_in_time)


def _assumed(scene: Scene, rentals: Sequence[Rental]) -> list[str]:
    """What containers are taken to do that none was seen doing."""
    if not rentals:
        return []
    starts = ", ".join(sorted({f"{one.offer.cold_start_s:g} s" for one in rentals}))
    found = [f"a container takes {starts} to start"]
    if scene.rented is None:
        gpus = ", ".join(f"{one.offer.gpu} {times_a_laptop(one.offer.gpu):g} ×" for one in rentals)
        found.append(f"a container is so many times as fast as this machine: {gpus} (the bandwidths of their memories)")
    return found
