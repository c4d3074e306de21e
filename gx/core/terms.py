"""On what terms a run may rent containers."""

from __future__ import annotations

from typing import Literal

from gx.core.message import Value

Mode = Literal["auto", "off", "force"]
AtCap = Literal["local", "stop", "ask"]
AT_CAP: dict[AtCap, str] = {
    "local": "this machine does the rest",
    "stop": "the run stops",
    "ask": "a person is asked what becomes of the rest",
}
"""What becomes of the rest of a run at its cap, as a person says it."""
GPUS = ("T4", "L4", "A10", "L40S", "A100-40GB", "A100-80GB", "RTX-PRO-6000", "H100", "H200", "B200")
"""The GPUs that can be asked for, by Modal's names of them. Their prices are `cloud.cost`'s."""

REHEARSAL = "rehearsal"
"""Where turns go that are rehearsed, as events of egress have it: to processes on this machine."""

MOST_CONTAINERS = 100
"""At once, on Modal's Starter plan."""


class Terms(Value, frozen=True, kw_only=True):
    """`auto` rents what the backlog is worth, `force` as many as it may at once, `off` nothing.

    `gpu` are Modal's names of the kinds that may be rented, any where there are none. `target_s` is when the run should
    be done at the latest, in seconds from its start, as its deadline is. `usd` is the cap over the run's whole life:
    `None` is no leave to spend anything. At the cap, once what was rented has ended, `at_cap` says what becomes of the
    rest: it is done here (`local`), the run stops (`stop`), or a person is asked (`ask`). A rehearsal rents from a
    control plane on this machine, free of charge.
    """

    mode: Mode = "auto"
    gpu: tuple[str, ...] = ()
    max_containers: int = 4
    target_s: float | None = None
    usd: float | None = None
    at_cap: AtCap = "local"
    is_rehearsal: bool = False
