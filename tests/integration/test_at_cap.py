"""A cap that has no room for a container: the run stops, asks, or goes on here, from the command line."""

from __future__ import annotations

import pytest

from gx.output import ExitCode
from tests.integration.project import Project

SMALL = ("burst", "--rehearse", "--force", "--gpu", "L4", "--budget", "$0.01")
ROWS = ("recipe.yaml", "-i", "rows.jsonl")
MORE = [{"id": f"more-{n}", "text": f"Say {n} again."} for n in range(40)]
"""So many rows more that this machine is not done before anything is decided."""
SAID = "the cap is reached: $0.0000 of $0.0100 are spent, and a container more could cost $"


@pytest.fixture
def busy(slow: Project) -> Project:
    """A run that takes a while."""
    slow.add(*MORE)
    return slow


def run_of(told: str) -> str:
    """The id of the run that was begun."""
    return next(line.split()[1] for line in told.splitlines() if line.startswith("run "))


def test_at_the_cap_a_run_that_was_to_stop_exits_with_4_and_goes_on_here_where_nothing_else_is_said(
    busy: Project,
) -> None:
    done = busy.run(*SMALL, "--at-cap", "stop", *ROWS)
    assert done.status == ExitCode.budget, done.err
    assert SAID in done.err and f"stopped: {SAID}" in done.err and "--budget '$USD'" in done.err
    again = busy.run(*SMALL, "--at-cap", "stop", *ROWS)
    assert again.status == ExitCode.budget and run_of(again.err) == run_of(done.err), again.err
    local = busy.run(*SMALL, *ROWS)
    assert (local.status, len(local.records)) == (ExitCode.ok, 60), local.err
    assert local.err.count(SAID) == 1 and "this machine does the rest" in local.err
    busy.assert_nothing_was_computed_twice()


def test_at_the_cap_a_person_is_asked_and_without_one_it_is_left_with_6(busy: Project) -> None:
    asking = busy.run(*SMALL, "--at-cap", "ask", *ROWS)
    run = run_of(asking.err)
    assert asking.status == ExitCode.waiting and f"gx answer {run} local | stop" in asking.err, asking.err
    assert busy.run("answer", run, "local").status == ExitCode.ok
    done = busy.run(*SMALL, "--at-cap", "ask", *ROWS)
    assert (done.status, len(done.records)) == (ExitCode.ok, 60), done.err


def test_the_recipe_says_what_happens_at_its_cap_and_a_wrong_word_is_refused_where_it_stands(busy: Project) -> None:
    recipe = busy.folder / "recipe.yaml"
    text = recipe.read_text()
    recipe.write_text(text + "budget: {usd: 0.01, at_cap: stop}\n")
    done = busy.run("burst", "--rehearse", "--force", "--gpu", "L4", *ROWS)
    assert done.status == ExitCode.budget, done.err
    recipe.write_text(text + "budget: {usd: 0.01, at_cap: stopp}\n")
    wrong = busy.run("burst", "--rehearse", "--force", *ROWS)
    assert wrong.status == ExitCode.usage and "did you mean `stop`?" in wrong.err, wrong.err
    flag = busy.run(*SMALL, "--at-cap", "never", *ROWS)
    assert flag.status == ExitCode.usage and "--at-cap: expected local, stop or ask" in flag.err
