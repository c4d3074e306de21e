"""A short form of `tests.soak.burst`: a driver and a container killed, a reply lost, and the books held together."""

from __future__ import annotations

from pathlib import Path

from tests.soak.burst import CAP_USD, Trial, run_trial


def test_a_burst_whose_driver_and_containers_are_killed_computes_and_pays_everything_once(tmp_path: Path) -> None:
    told = run_trial(tmp_path, Trial(tasks=40, driver_kills=1, container_kills=1, lost=2, seed=5, containers=1))
    assert told.rented > 0 and told.struck > 0
    assert 0 < told.billed_usd <= told.booked_usd <= CAP_USD
