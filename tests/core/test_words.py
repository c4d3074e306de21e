"""Figures in words: one form for each, whoever tells it."""

from __future__ import annotations

from math import inf

import pytest

from gx.core.words import counted, duration


@pytest.mark.parametrize(
    "seconds, words",
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (1800, "30 min"),
        (3599.9, "1 h"),
        (7500, "2 h 5 min"),
        (190_800, "2 d 5 h"),
        (inf, "for ever"),
    ],
)
def test_a_duration_has_two_units_at_most_and_no_zeros(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_one_thing_is_singular() -> None:
    assert [counted(n, "task") for n in (0, 1, 1200)] == ["0 tasks", "1 task", "1,200 tasks"]
    assert counted(2, "batch", "batches") == "2 batches"
