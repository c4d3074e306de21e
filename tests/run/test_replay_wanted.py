"""Policies as they are typed."""

from __future__ import annotations

import pytest

from gx.core.errors import UsageError
from gx.run.replay.wanted import EXAMPLE, Wanted, wanted

GPUS = ("T4", "L4")


def test_a_policy_is_keys_and_values() -> None:
    found = wanted("slots=16, containers=4,gpu=L4,burst=always,usd=2.5,deadline=30m,start=90s,faster=8", gpus=GPUS)
    assert (found.slots, found.containers, found.gpu, found.burst) == (16, 4, "L4", "always")
    assert (found.usd, found.deadline, found.start, found.faster) == (2.5, 1800.0, 90.0, 8.0)
    assert wanted(EXAMPLE, gpus=GPUS).rents == "auto"


def test_a_policy_rents_where_it_names_containers_and_not_where_it_does_not() -> None:
    assert Wanted(containers=2).rents == "auto" and Wanted(slots=2).rents == "off"
    assert Wanted(containers=2, burst="off").rents == "off"


@pytest.mark.parametrize(
    "text, message",
    [
        ("slot=16", "a policy has no `slot`; did you mean `slots`?"),
        ("slots=0", "`slots` must be a whole number from 1 to 256, got '0'"),
        ("slots=many", "got 'many'"),
        ("slots", "expected slots=value"),
        ("slots=1,slots=2", "once"),
        ("burst=maybe", "off, auto or always"),
        ("usd=-1", "`usd` must be a positive number of dollars"),
        ("usd=nan", "positive number"),
        ("deadline=soon", "such as 30m"),
        ("gpu=B9000", "no price of a GPU 'B9000'"),
        ("", "says nothing"),
        (",,", "says nothing"),
    ],
)
def test_what_is_no_policy_is_refused_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        wanted(text, gpus=GPUS)
    assert message in caught.value.message
