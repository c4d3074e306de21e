"""A few kills of `tests.soak.kill`: of gx as it starts and later, of its bench, with other runs and erasures between.

And that the soak would notice: each promise is seen to be broken once.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.desk import open_desk
from tests.soak.kill import run_trial
from tests.soak.promises import Acknowledged, Broken, check_log, records_of
from tests.soak.story import Erase, Kill, Other, Trial, Verify, trials

TASKS = 48
TEXTS = {"a": "one", "b": "one"}
RECIPE = """\
version: 1
name: twice
models: {m: ./m.gguf}
agents: {a: {model: m}}
steps: [{id: write, for_each: inputs, agent: a, prompt: "{{ item.text }}"}]
"""


@pytest.mark.parametrize(
    "trial",
    [
        Trial((Kill("gx", None, 0.4), Verify(), Kill("gx", 20, 0.5), Erase(0.2, None)), None, has_report=False, seed=1),
        Trial((Kill("bench", 8, 0.3), Kill("gx", 16, 0.0), Other("limit", 40, None)), None, has_report=True, seed=2),
        Trial((Kill("bench", 8, 0.0),), 44, has_report=False, seed=3),
    ],
    ids=["gx, gx, erased", "bench, gx, another run", "bench, and a row that kills it"],
)
def test_a_killed_run_goes_on_and_computes_nothing_twice(tmp_path: Path, tiny: Path, trial: Trial) -> None:
    shutil.copy(tiny, tmp_path / "tiny.gguf")
    told = run_trial(tmp_path / "trial", trial, TASKS)
    assert told.starts == 1 + sum(isinstance(step, Kill) and step.whom == "gx" for step in trial.steps)


def test_a_story_follows_from_its_seed_and_has_the_kills_that_were_asked_for() -> None:
    told = trials(40, seed=7, tasks=200)
    assert told == trials(40, seed=7, tasks=200) != trials(40, seed=8, tasks=200)
    assert sum(trial.kills for trial in told) >= 40
    steps = [type(step) for trial in told for step in trial.steps]
    assert set(steps) == {Kill, Other, Erase, Verify}


def test_a_run_that_ends_otherwise_than_it_should_is_noticed(tmp_path: Path, tiny: Path) -> None:
    shutil.copy(tiny, tmp_path / "tiny.gguf")
    missing_row = Trial((), poisoned=8, has_report=False, seed=0)  # the row that should crash isn't there
    with pytest.raises(Broken, match="ended with 0"):
        run_trial(tmp_path / "trial", missing_row, tasks=8)


def test_a_row_that_is_printed_twice_is_noticed() -> None:
    with pytest.raises(Broken, match="a row was printed twice"):
        records_of([b'{"id": "a"}\n', b'{"id": "a"}\n'])


def test_equal_rows_with_two_answers_are_noticed() -> None:
    acknowledged = Acknowledged(TEXTS)
    acknowledged.add({"a": {"id": "a", "status": "succeeded", "output": "yes"}})
    with pytest.raises(Broken, match=r"b \(one\) was"):
        acknowledged.add({"b": {"id": "b", "status": "succeeded", "output": "no"}})


@pytest.mark.anyio
async def test_a_result_that_is_computed_twice_or_lost_is_noticed(tmp_path: Path) -> None:
    rows = [{"id": name, "text": text} for name, text in TEXTS.items()]
    async with open_desk(tmp_path) as desk:
        await desk.run(RECIPE, rows)
    check_log(tmp_path, TEXTS)
    acknowledged = Acknowledged(TEXTS | {"c": "two"})
    acknowledged.add({"c": {"id": "c", "status": "succeeded", "output": "two"}})
    with pytest.raises(Broken, match="printed, and not in the log"):
        acknowledged.check(tmp_path)
    with pytest.raises(Broken, match="texts that were not computed"):
        check_log(tmp_path, TEXTS | {"c": "two"})
    async with open_desk(tmp_path) as desk:
        await desk.run(RECIPE, rows, run="again", fresh=True)
    with pytest.raises(Broken, match="was computed by event"):
        check_log(tmp_path, TEXTS)
