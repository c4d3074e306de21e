"""200 randomised runs against a cap, on a simulated clock: rates, durations, faults and driver deaths.

The world spends in real container-seconds; the driver knows its ledger, and what it is told, late. Between two ticks
the world goes on without it, and while it is dead for long.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import msgspec
import pytest

from gx.core.ledger import Container, Ledger, ended, given_up, may_spawn, renewable, renewed, settled, spawned


class Odds(NamedTuple):
    """What a world is like."""

    usd_per_s: float
    input_s: float
    timeout_s: float
    cold_s: float
    window_s: float
    crash: float
    lost: float
    death: float
    report_s: float


class Life:
    """A container as it is: it loads, takes inputs while its lease holds, idles, ends, or crashes."""

    def __init__(self, spec: Container, odds: Odds, rng: Random) -> None:
        self.spec, self.odds, self.rng = spec, odds, rng
        self.lease_until_s = spec.spawned_s + spec.cold_start_s + spec.lease_s
        self.busy_until_s = spec.spawned_s + rng.uniform(0.3, 1.0) * odds.cold_s
        self.ended_s: float | None = None

    def live(self, to_s: float, work: list[float]) -> None:
        """Go on up to an instant, taking inputs, each so many seconds, off the end of `work`."""
        while self.ended_s is None and self.busy_until_s <= to_s:
            if self.rng.random() < self.odds.crash:
                self.ended_s = self.busy_until_s
            elif work and self.busy_until_s < self.lease_until_s:
                self.busy_until_s += min(work.pop(), self.spec.timeout_s)
            elif self.busy_until_s + self.spec.window_s <= to_s:
                self.ended_s = self.busy_until_s + self.spec.window_s
            else:
                return

    def cost_usd(self, to_s: float) -> float:
        return self.spec.usd_per_s * ((to_s if self.ended_s is None else self.ended_s) - self.spec.spawned_s)


def simulate(seed: int) -> tuple[float, float, float, bool]:
    """The cap, what was really spent, one container's reservation, and whether the work needed more than there was."""
    rng = Random(seed)
    odds = Odds(
        usd_per_s=rng.uniform(0.0001, 0.002),
        input_s=rng.lognormvariate(2.5, 1.0),
        timeout_s=rng.uniform(30, 600),
        cold_s=rng.uniform(5, 120),
        window_s=rng.uniform(2, 60),
        crash=rng.choice([0.0, 0.001, 0.02]),
        lost=rng.choice([0.0, 0.1]),
        death=rng.choice([0.0, 0.003, 0.02]),
        report_s=rng.uniform(0, 20),
    )
    shape = Container(
        id="", gpu="L4", usd_per_s=odds.usd_per_s, spawned_s=0, settled_s=0, renewed_s=0, timeout_s=odds.timeout_s,
        cold_start_s=odds.cold_s, window_s=odds.window_s,
    )  # fmt: skip
    reservation = shape.exposure_usd
    most, cap = rng.randint(1, 12), reservation * rng.uniform(0.5, 20)
    work = [rng.expovariate(1 / odds.input_s) for _ in range(rng.choice([50, 100_000]))]
    ledger, lives, now_s, dead_until_s, n = Ledger(cap_usd=cap), dict[str, Life](), 0.0, 0.0, 0
    kept = b""
    while True:
        for life in lives.values():
            life.live(now_s, work)
        spent = sum(life.cost_usd(now_s) for life in lives.values())
        assert spent <= cap + 1e-9, f"seed {seed}: {spent} of {cap} after {now_s} s"
        if now_s >= dead_until_s:
            if kept:  # a new driver reads what the old one recorded, and nothing else
                ledger, kept = msgspec.json.decode(kept, type=Ledger), b""
            for id in list(ledger.alive):
                if id not in lives:
                    ledger = ended(ledger, id, ledger.alive[id].spawned_s)  # the cloud knows of no such container
                elif (end_s := lives[id].ended_s) is not None and end_s + odds.report_s <= now_s:
                    ledger = ended(ledger, id, end_s)
                elif end_s is None:
                    ledger = settled(ledger, id, now_s)
            ledger = given_up(ledger, now_s)
            chosen = renewable(ledger, now_s)
            ledger = renewed(ledger, chosen, now_s)
            if rng.random() < odds.death:  # after it was recorded, before anybody was told
                kept, dead_until_s = msgspec.json.encode(ledger), now_s + rng.uniform(1, 600)
            else:
                for id in chosen:
                    if id in lives:
                        lives[id].lease_until_s = now_s + lives[id].spec.lease_s
            while work and not kept and len(ledger.alive) < most:
                n += 1
                one = msgspec.structs.replace(shape, id=f"c{n}", spawned_s=now_s, settled_s=now_s, renewed_s=now_s)
                if not may_spawn(ledger, one):
                    break
                ledger = spawned(ledger, one)
                if rng.random() >= odds.lost:
                    lives[one.id] = Life(one, odds, rng)
            if not ledger.alive and not kept:
                return cap, spent, reservation, bool(work)
        now_s += 5.0


@pytest.mark.parametrize("tens", range(20))
def test_what_is_spent_never_passes_the_cap_and_little_is_left_where_more_was_needed(tens: int) -> None:
    for seed in range(10 * tens, 10 * tens + 10):
        cap, spent, reservation, needs_more = simulate(seed)
        assert spent <= cap
        if needs_more:
            assert cap - spent <= max(reservation, 0.15 * cap) + 1e-9, f"seed {seed}"


def test_the_worlds_are_of_both_kinds() -> None:
    short = [simulate(seed)[3] for seed in range(40)]
    assert any(short) and not all(short)
