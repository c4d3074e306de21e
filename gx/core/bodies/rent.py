"""What was rented: on which terms, for how much, and what left the machine."""

from __future__ import annotations

from gx.core.message import Value
from gx.core.terms import AtCap, Terms


class BurstAllowed(Value, frozen=True, kw_only=True, tag="burst.allowed"):
    """From now on the run may rent on these terms, in place of those that it had. The cap is over its whole life."""

    run: str
    terms: Terms
    by: str = ""


class PlacementDecided(Value, frozen=True, kw_only=True, tag="placement.decided"):
    """Where the excess of the run's work goes from now on: written when the verdict changes, and only then.

    `verdict` is "edge" or "burst", with so many `containers` of a `gpu`. `finish_s` is the time to the end that is
    expected of it, `edge_s` that without any container, `usd` what it costs from now on. `figures` are those that it
    was decided from, by their names in `gx.run.placement`; one that was unknown is left out.
    """

    run: str
    verdict: str
    reason: str
    gpu: str = ""
    containers: int = 0
    finish_s: float = 0.0
    edge_s: float = 0.0
    usd: float = 0.0
    figures: dict[str, float] = {}


class ContainerReserved(Value, frozen=True, kw_only=True, tag="container.reserved"):
    """One container more may be alive from `at` on: written before it is asked for, and kept until it must have ended.

    The fields are those of `gx.core.ledger.Container`: what it costs a second, and what bounds its life, in seconds.
    """

    run: str
    container: str
    gpu: str
    usd_per_s: float
    timeout_s: float
    cold_start_s: float
    lease_s: float
    window_s: float
    at: float


class ContainersRenewed(Value, frozen=True, kw_only=True, tag="containers.renewed"):
    """The driver vouches anew, as of `at`, for what these containers begin: written before they are told."""

    run: str
    containers: tuple[str, ...]
    at: float


class ContainerSeen(Value, frozen=True, kw_only=True, tag="container.seen"):
    """A container, `name` at its landlord, was alive at `at`, up since `began_at`: what it cost until then is known.

    Written when it is first seen, then at most one in 15 s. All are wall-clock seconds.
    """

    run: str
    container: str
    name: str
    began_at: float
    at: float


class ContainerEnded(Value, frozen=True, kw_only=True, tag="container.ended"):
    """A container has ended by `at`, as far as can be told from here: it costs nothing more."""

    run: str
    container: str
    at: float


class RentRefused(Value, frozen=True, kw_only=True, tag="rent.refused"):
    """Nothing can be rented, or not for now: no token, a quota, an account that doesn't answer. The run goes on here.

    Written once for each reason in a row.
    """

    run: str
    reason: str
    code: str = ""


class CapReached(Value, frozen=True, kw_only=True, tag="cap.reached"):
    """The cap has no room for another container, and none is alive: nothing more is rented on these terms.

    `usd` are spent of `cap_usd`, and a container more could cost `reserve_usd`. `then` is what becomes of the rest:
    "local", "stop" or "ask", as `gx.core.terms.Terms.at_cap` has it.
    """

    run: str
    usd: float
    cap_usd: float
    reserve_usd: float
    then: AtCap = "local"


class CallMade(Value, frozen=True, kw_only=True, tag="call.made"):
    """A container's landlord took the attempt, as `call`: by that it is found again. A later one takes its place."""

    run: str
    task: str
    attempt: int
    call: str
    gpu: str


class Egress(Value, frozen=True, kw_only=True, tag="egress.declared"):
    """An attempt's turn leaves this machine for `to`: `bytes` of it, with that digest. Committed before it leaves.

    `fields` are what its prompt was made from, by their names, such as "item.text".
    """

    run: str
    task: str
    attempt: int
    to: str
    fields: tuple[str, ...]
    bytes: int
    digest: str
