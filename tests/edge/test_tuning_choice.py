"""What is chosen is faster twice over, computes the same, and a short time leaves the rest out."""

from __future__ import annotations

from collections.abc import Callable

from edge.engine.tuning import Speeds, Tuning
from edge.trials import Calibration, Setup, calibrate

DEFAULT = Setup(tuning=Tuning(threads=8, pass_tokens=512), slots=32)


def run(speed: Callable[[Setup, int], float | None], *, trials: int = 99) -> Calibration:
    """Calibrate a machine of 8 cores on which `speed` says how fast a setup is when it is measured for the nth time."""
    counts: dict[Setup, int] = {}
    left = [trials]

    def measure(setup: Setup, is_enough: Callable[[Speeds], bool]) -> Speeds | None:
        counts[setup] = counts.get(setup, 0) + 1
        found = speed(setup, counts[setup])
        return None if found is None else Speeds(prefill=100 * found, decode=100 * found, slots=setup.slots)

    def has_time() -> bool:
        left[0] -= 1
        return left[0] >= 0

    found = calibrate(DEFAULT, cores=8, measure=measure, has_time=has_time)
    assert found is not None
    return found


def test_values_that_gain_add_up_one_thing_after_the_other() -> None:
    def speed(setup: Setup, count: int) -> float:
        tuning = setup.tuning
        return 1 + (tuning.threads == 4) + (tuning.flash is False) + (tuning.pass_tokens == 1024)

    found = run(speed)
    assert found.chosen == Setup(tuning=Tuning(threads=4, pass_tokens=1024, flash=False), slots=32)
    assert found.gain == 4
    assert [t.value for t in found.trials if t.what == "threads"] == ["4", "1"]


def test_nothing_is_changed_where_nothing_gains_a_twentieth() -> None:
    found = run(lambda setup, count: 1.0 if setup == DEFAULT else 1.04)
    assert found.chosen == DEFAULT and found.gain == 1 and found.slots == 32


def test_a_value_that_only_won_against_a_disturbed_measurement_is_not_taken() -> None:
    found = run(lambda setup, count: 0.5 if setup == DEFAULT and count == 1 else 1.0)
    assert found.chosen == DEFAULT


def test_a_cache_of_less_precision_and_slots_are_told_and_never_chosen() -> None:
    found = run(lambda setup, count: 1 + (setup.tuning.cache == "q8_0") + 0.5 * (setup.slots == 16))
    assert found.chosen == DEFAULT and found.slots == 16
    assert next(t for t in found.trials if t.what == "cache").setup.tuning.cache == "q8_0"


def test_what_can_not_be_computed_is_kept_as_such() -> None:
    found = run(lambda setup, count: None if setup.tuning.flash is False else 1.0)
    assert next(t for t in found.trials if t.what == "flash attention").speeds is None
    assert found.chosen == DEFAULT


def test_when_the_time_is_over_the_rest_is_named() -> None:
    found = run(lambda setup, count: 1.0, trials=1)
    assert [t.value for t in found.trials] == ["", "4"]
    assert found.left_out[0] == "threads 1" and "slots 16" in found.left_out


def test_no_choice_without_a_measurement_of_the_defaults() -> None:
    assert calibrate(DEFAULT, cores=8, measure=lambda setup, is_enough: None, has_time=lambda: True) is None
