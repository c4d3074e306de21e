"""What rented containers cost: rates with their source, and an estimate before anything is spent.

Pure. What a run may cost at most, and the ledger of that, is in `gx.core.ledger`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import msgspec

from gx.core.ledger import LEASE_S
from gx.core.message import Value
from gx.core.task import Offer

SCALEDOWN_S = 10.0
"""How long a container idles before it ends; Modal takes 2 to 3,600."""
ENDING_S = 3.0
"""How long its end may take then: its bench exits, it lets go of its volume; and it is billed until it is gone."""
COLD_START_S = 60.0
"""What a start is taken for until one was measured: an image that is cached, and a few GB of weights from a volume."""
GRACE_S = 30.0
"""What an input may take beyond what it is reckoned to."""
LONGEST_S = 600.0
"""The longest that one is reckoned to take where its step says nothing."""
SOURCE = "https://modal.com/pricing"
DATE = "2026-09"
CORE_USD_PER_S = 0.0000131
GIB_USD_PER_S = 0.00000222
CORES = 2.0
"""What a container asks for, and no more: a GPU does the work."""
LEAST_GIB = 8
BESIDE_GIB, ROOM = 6, 1.25
"""Memory beside the weights, and by what they are multiplied: buffers, and what the bench keeps of turns."""
_GIB = 1 << 30


class Rates(Value, frozen=True, kw_only=True):
    """Dollars a second of one container, by what it has: a GPU, `cores` and `memory_gib` of memory. `date` of `source`.

    `region` is what a pinned region multiplies it by: 1.15 for a broad one to 1.75 for a narrow one.
    """

    gpu: str
    gpu_usd_per_s: float
    cores: float = CORES
    memory_gib: float = LEAST_GIB
    region: float = 1.0
    source: str = SOURCE
    date: str = DATE

    @property
    def usd_per_s(self) -> float:
        """All of it."""
        rest = self.cores * CORE_USD_PER_S + self.memory_gib * GIB_USD_PER_S
        return (self.gpu_usd_per_s + rest) * self.region


RATES = {
    gpu: Rates(gpu=gpu, gpu_usd_per_s=usd)
    for gpu, usd in {
        "T4": 0.000164,
        "L4": 0.000222,
        "A10": 0.000306,
        "L40S": 0.000542,
        "A100-40GB": 0.000583,
        "A100-80GB": 0.000694,
        "RTX-PRO-6000": 0.000842,
        "H100": 0.001097,
        "H200": 0.001261,
        "B200": 0.001736,
    }.items()
}
"""By Modal's name of the GPU, as of `DATE`; live ones, where they were fetched, take their place."""


def input_s(turn_s: float | None) -> float:
    """The longest that an input may take there, in seconds, whose turn may take so long, or `None` where nobody says.

    It counts from when a container has it: the first one waits for its model, one that finds no slot for another turn.
    """
    return LONGEST_S + GRACE_S if turn_s is None else 2 * turn_s + COLD_START_S + GRACE_S


def memory_gib(model_bytes: int) -> int:
    """What a container asks for, and may use, whose models have so many bytes. The bench holds weights in memory, and
    what it keeps of turns, as it does at home: with less it would refuse a model, or be killed.
    """
    return max(LEAST_GIB, ceil(ROOM * model_bytes / _GIB + BESIDE_GIB))


def sized(rates: Mapping[str, Rates], model_bytes: int) -> dict[str, Rates]:
    """Those of containers for models of so many bytes."""
    gib = memory_gib(model_bytes)
    return {gpu: msgspec.structs.replace(one, memory_gib=gib) for gpu, one in rates.items()}


def offers(rates: Mapping[str, Rates], *, timeout_s: float, start_limit_s: float) -> dict[str, Offer]:
    """What may be rented at those rates, by GPU, its pace not known.

    An input that takes longer than `timeout_s` is given up, and so is a start that takes longer than `start_limit_s`.
    """
    reserve_s = start_limit_s + LEASE_S + timeout_s + SCALEDOWN_S + ENDING_S
    return {
        gpu: Offer(
            gpu=gpu,
            tokens_per_s=0.0,
            usd_per_s=one.usd_per_s,
            cold_start_s=COLD_START_S,
            window_s=SCALEDOWN_S + ENDING_S,
            reserve_usd=one.usd_per_s * reserve_s,
            start_limit_s=start_limit_s,
            timeout_s=timeout_s,
            source=one.source,
            date=one.date,
        )
        for gpu, one in rates.items()
    }


# ── estimates ────────────────────────────────────────────────────────────────────────────────────────────────────


class Estimate(Value, frozen=True, kw_only=True):
    """What a burst will cost, in US dollars: from `low` to `high`, by the rates of `source` as of `date`."""

    low_usd: float
    high_usd: float
    source: str = SOURCE
    date: str = DATE

    def __str__(self) -> str:
        return f"${self.low_usd:.2f} to ${self.high_usd:.2f}"


def estimate(
    rates: Rates, *, tokens: float, slow_tokens_per_s: float, fast_tokens_per_s: float, containers: int,
    cold_start_s: float = COLD_START_S, window_s: float = SCALEDOWN_S, cap_usd: float | None = None,
) -> Estimate:  # fmt: skip
    """The cost of so many tokens on so many containers, each with its loading and its idle tail.

    The range is that of the rate of one container, in tokens a second: as fast as assumed or measured, and as slow as
    it may turn out. A container more than the work fills costs its start and its end.
    """
    if containers < 1 or tokens <= 0:
        return Estimate(low_usd=0.0, high_usd=0.0, source=rates.source, date=rates.date)
    overhead_s = containers * (cold_start_s + window_s)
    low, high = (rates.usd_per_s * (tokens / pace + overhead_s) for pace in (fast_tokens_per_s, slow_tokens_per_s))
    if cap_usd is not None:
        low, high = min(low, cap_usd), min(high, cap_usd)
    return Estimate(low_usd=_cents(low), high_usd=_cents(high), source=rates.source, date=rates.date)


def _cents(usd: float) -> float:
    return ceil(usd * 10_000 - 1e-9) / 10_000
