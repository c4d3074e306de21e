"""A run once more: what the old one was asked with is asked again, but for leave to spend money."""

from __future__ import annotations

import pytest

from gx.cli.fork import _asked
from gx.core import event as e
from gx.core.terms import Terms
from gx.node.again import once_more
from gx.node.client import Submission
from gx.tui.intents import Intents
from tests.node.served import Served, ended, recipe

AGREED = Terms(mode="force", gpu=("L4",), usd=2.0)


def asked(burst: Terms, budget: str = "") -> Submission:
    text = recipe("again") + budget
    return Submission(recipe_text=text, recipe_file="r.yaml", recipe_folder="/", folder="/", burst=burst, fresh=True,
                      name="n", token="t", fresh_from="s", limit=3)  # fmt: skip


def test_dollars_that_were_agreed_to_for_a_run_are_not_the_next_ones() -> None:
    assert once_more(asked(AGREED)).burst is None


@pytest.mark.parametrize(("own", "left"), [(1.0, 1.0), (3.0, 2.0)])
def test_what_the_recipe_allows_itself_is_left_and_no_more_than_there_was(own: float, left: float) -> None:
    made = once_more(asked(AGREED, f"budget: {{usd: {own}}}\n")).burst
    assert made == Terms(mode="force", gpu=("L4",), usd=left)


@pytest.mark.parametrize("terms", [Terms(usd=2.0, is_rehearsal=True), Terms(mode="off", usd=2.0)])
def test_what_spends_nothing_is_as_it_was(terms: Terms) -> None:
    assert once_more(asked(terms)).burst == terms


def test_a_run_once_more_is_a_run_of_its_own_with_the_same_limits() -> None:
    made = once_more(asked(AGREED))
    assert (made.fresh, made.fresh_from, made.name, made.token, made.limit) == (False, None, None, "", 3)


def test_neither_the_command_nor_the_monitor_hands_leave_to_spend_on(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    text = recipe("leave") + "burst: {mode: auto}\n"
    run = served.submit(text, rows=1, is_detached=True, burst=Terms(mode="auto", usd=2.0)).run
    ended(served, run)
    _, _, wanted = _asked(run, served.folder)
    assert wanted.burst is None
    assert f"dollars were agreed to for {run} alone" in capsys.readouterr().err
    again = Intents(served.folder).fork(run, "s").run
    ended(served, again)
    (created,) = served.bodies(again, e.RunCreated)
    assert created.burst == Terms(mode="auto")
