"""Which way to compute a model is the fastest: one thing is varied after the other. Pure: it is told speeds.

Each thing starts from what was the best so far. Another value must save a twentieth of the time that a row takes, and
do so again when the present choice is measured anew, since whatever disturbs a machine disturbs some measurements only.

Invariant: what is chosen computes the same as the defaults do. A cache of less precision is measured and never chosen;
so is the number of slots, which is a bench's and no model's, but the best one is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from edge.engine.tuning import Speeds, Tuning
from gx.core.message import Value

WORTH = 0.95
"""The most that a row may take with another value, of what it takes with the present one."""
HOPELESS = 1.25
"""Once a row takes so much more than with the present choice, there is no need to measure again."""
PASS_TOKENS = (128, 512, 1024)
SLOTS = (8, 16, 32)
TOLD_ONLY = frozenset({"slots", "cache"})


class Setup(Value, frozen=True, kw_only=True):
    """A way to compute: how contexts are made, and for how many answers at once."""

    tuning: Tuning
    slots: int


class Trial(Value, frozen=True, kw_only=True):
    """A value of one thing, and how fast it was; `speeds` is `None` if the model can't be computed so."""

    what: str
    value: str
    setup: Setup
    speeds: Speeds | None


class Calibration(Value, frozen=True, kw_only=True):
    """What was measured, in order, the defaults first. `left_out` are the values for which the time was too short.

    `slots` is the number that was the fastest, be it the one of `chosen`, which is the default's, or not.
    """

    trials: tuple[Trial, ...]
    chosen: Setup
    slots: int
    default_speeds: Speeds
    chosen_speeds: Speeds
    left_out: tuple[str, ...] = ()

    @property
    def gain(self) -> float:
        """How many times as fast rows are as with the defaults."""
        return self.default_speeds.row_s / self.chosen_speeds.row_s


Measure = Callable[[Setup, Callable[[Speeds], bool]], Speeds | None]
"""Measures a way to compute, until the second says of the medians so far that they will do."""
_Values = Callable[[Setup], Iterator[tuple[str, Setup]]]


def calibrate(
    default: Setup, *, cores: int, measure: Measure, has_time: Callable[[], bool], most_slots: int | None = None
) -> Calibration | None:
    """Measure and choose; `None` if not even the defaults can be measured. `has_time` is asked before each trial.

    `most_slots` is for how many there is memory; `None` stands for the default's number.
    """
    first = measure(default, lambda medians: not has_time())
    if first is None:
        return None
    trials = [Trial(what="defaults", value="", setup=default, speeds=first)]
    chosen, best, reference = default, first, first
    left_out: list[str] = []
    for what, values in _things(cores, default, most_slots or default.slots).items():
        for value, setup in values(chosen):
            if not has_time():
                left_out.append(f"{what} {value}")
                continue
            found = measure(setup, _until(HOPELESS * best.row_s, has_time))
            trials.append(Trial(what=what, value=value, setup=setup, speeds=found))
            if what in TOLD_ONLY or found is None or found.row_s > WORTH * best.row_s:
                continue
            again = measure(chosen, lambda medians: not has_time())
            if again is None:
                continue
            if chosen == default:
                reference = again
            best = again
            if found.row_s <= WORTH * again.row_s:
                chosen, best = setup, found
    return Calibration(
        trials=tuple(trials),
        chosen=chosen,
        slots=_best_slots(trials, chosen, best),
        default_speeds=reference,
        chosen_speeds=best,
        left_out=tuple(left_out),
    )


def _until(most_s: float, has_time: Callable[[], bool]) -> Callable[[Speeds], bool]:
    """A measurement will do once a row takes longer than that, or there is no time for more."""
    return lambda medians: medians.row_s > most_s or not has_time()


def _best_slots(trials: list[Trial], chosen: Setup, best: Speeds) -> int:
    times_s = {t.setup.slots: t.speeds.row_s for t in trials if t.what == "slots" and t.speeds is not None}
    fastest = min(times_s, key=lambda slots: times_s[slots], default=chosen.slots)
    return fastest if times_s.get(fastest, best.row_s) <= WORTH * best.row_s else chosen.slots


def _things(cores: int, default: Setup, most_slots: int) -> dict[str, _Values]:
    """What is varied, the most important first, and the values that are tried of it, given the choice so far."""

    def threads(chosen: Setup) -> Iterator[tuple[str, Setup]]:
        for n in sorted({max(1, cores // 2), 1} - {chosen.tuning.threads}, reverse=True):
            yield str(n), _with(chosen, threads=n)

    def flash(chosen: Setup) -> Iterator[tuple[str, Setup]]:
        yield "off", _with(chosen, flash=False)

    def pass_tokens(chosen: Setup) -> Iterator[tuple[str, Setup]]:
        for n in PASS_TOKENS:
            if n != chosen.tuning.pass_tokens:
                yield str(n), _with(chosen, pass_tokens=n)

    def slots(chosen: Setup) -> Iterator[tuple[str, Setup]]:
        for n in SLOTS:
            if n != default.slots and n <= most_slots:
                yield str(n), Setup(tuning=chosen.tuning, slots=n)

    def cache(chosen: Setup) -> Iterator[tuple[str, Setup]]:
        if chosen.tuning.flash is not False:  # without it, values must be kept in half precision
            yield "q8_0", _with(chosen, cache="q8_0")

    return {"threads": threads, "flash attention": flash, "tokens a pass": pass_tokens, "slots": slots, "cache": cache}


def _with(setup: Setup, **changes: object) -> Setup:
    return Setup(tuning=msgspec.structs.replace(setup.tuning, **changes), slots=setup.slots)
