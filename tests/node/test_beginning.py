"""What a submission asks of a run that is there already."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gx.core import event as e
from gx.core.errors import UsageError
from gx.core.projection import fold
from gx.core.terms import Terms
from gx.core.view import RunState, View
from gx.node import beginning
from gx.node.client import Submission

NOW = 1_000_000.0
"""Seconds since 1970."""


@dataclass
class Script:
    """A run, event after event."""

    view: View

    @property
    def run(self) -> RunState:
        return self.view.runs["r"]

    def then(self, *bodies: e.Body) -> Script:
        for body in bodies:
            fold(self.view, e.Event(seq=self.view.seq + 1, ts=int(NOW * 1e6), source="node:1", body=body))
        return self


def begun(**more: object) -> Script:
    made = e.RunCreated(run="r", name="r", fingerprint="f", recipe="", params="", **more)
    return Script(View()).then(made)


def wanted(**more: object) -> Submission:
    given = {
        "recipe_text": "",
        "recipe_file": "r.yaml",
        "recipe_folder": "/",
        "folder": "/",
        "inputs": None,
        "by": "me",
    }
    return Submission(**(given | more))


def test_a_run_whose_node_died_keeps_the_cap_and_the_deadline_that_it_has() -> None:
    script = begun(burst=Terms(mode="auto", usd=5.0), deadline_at=NOW + 60)
    script.then(e.BurstAllowed(run="r", terms=Terms(mode="auto", usd=1.0)))
    asked = beginning.rejoined(script.run, wanted(burst=Terms(mode="auto", usd=5.0), deadline_s=60.0, budget_tokens=7))
    (resumed,) = beginning.resumed(script.run, asked, NOW + 59)
    assert isinstance(resumed, e.RunResumed) and (resumed.deadline_at, resumed.budget_tokens) == (None, None)


def test_a_run_that_had_ended_and_is_taken_up_again_gets_its_time_anew() -> None:
    script = begun(deadline_at=NOW + 60).then(e.RunInterrupted(run="r", reason="Ctrl-C"))
    (resumed,) = beginning.resumed(script.run, beginning.rejoined(script.run, wanted(deadline_s=60.0)), NOW + 999)
    assert isinstance(resumed, e.RunResumed) and resumed.deadline_at == NOW + 999 + 60


@pytest.mark.parametrize("is_rehearsal", [True, False])
def test_who_joins_or_resumes_can_not_turn_what_is_paid_into_a_rehearsal(is_rehearsal: bool) -> None:
    script = begun(burst=Terms(mode="auto", usd=5.0, is_rehearsal=is_rehearsal))
    limits = {"timeout_s": 60.0, "cold_start_s": 300.0, "lease_s": 60.0, "window_s": 60.0}
    script.then(e.ContainerReserved(run="r", container="c", gpu="L4", usd_per_s=0.001, at=NOW, **limits))
    other = wanted(burst=Terms(mode="auto", usd=5.0, is_rehearsal=not is_rehearsal))
    for ask in (beginning.joined, beginning.resumed):
        with pytest.raises(UsageError, match="can't begin to rehearse"):
            ask(script.run, other, NOW)


def test_a_recipe_s_deadline_that_is_over_begins_anew_where_the_run_had_come_to_an_end() -> None:
    script = begun(deadline_at=NOW + 60).then(e.RunStopped(run="r", limit="deadline", reason="the deadline passed"))
    for now, deadline_at in ((NOW + 30, None), (NOW + 999, NOW + 999 + 60)):
        (resumed,) = beginning.resumed(script.run, wanted(), now, deadline_s=60.0)
        assert isinstance(resumed, e.RunResumed) and resumed.deadline_at == deadline_at
    (resumed,) = beginning.resumed(script.run, wanted(), NOW + 999)  # the recipe has none, and nobody says how long
    assert isinstance(resumed, e.RunResumed) and resumed.deadline_at is None
