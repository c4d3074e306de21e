"""A few kills of `tests.soak.kill`: of nodes as they start and later, of clients and benches, with runs between them.

And that the soak would notice: each promise is seen to be broken once.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.desk import open_desk
from tests.soak.kill import run_trial
from tests.soak.promises import Acknowledged, Broken, check_log, records_of
from tests.soak.story import Away, Erase, Kill, Other, Trial, Verify, trials

TASKS = 48
TEXTS = {"a": "one", "b": "one"}
RECIPE = """\
version: 1
name: twice
models: {m: ./m.gguf}
agents: {a: {model: m}}
steps: [{id: write, for_each: inputs, agent: a, prompt: "{{ item.text }}"}]
"""


STORIES = {
    "node at the start, three clients": Trial(
        (Kill("node", None, 0.3), Kill("node", None, 0.7), Kill("node", 30, 0.5)), None, False, 1, clients=3
    ),
    "node, gx, node, two clients": Trial(
        (Kill("node", 4, 0.2), Kill("gx", 12, 0.3), Kill("node", 20, 0.9)), None, False, 2, clients=2
    ),
    "gx, bench, node, erased, another run": Trial(
        (Kill("gx", 6, 0.4), Kill("bench", 10, 0.3), Kill("node", 24, 0.0), Verify(), Erase(0.2, None),
         Other("limit", 40, Kill("node", 2, 0.5))),
        None, True, 3,
    ),
    "node, bench, and a row that kills it": Trial(
        (Kill("node", 8, 0.0), Kill("bench", 16, 0.0), Kill("node", 20, 0.5)), 44, False, 4, clients=2
    ),
    "report, node": Trial((Kill("node", 47, 0.5), Other("report", 48, Kill("node", None, 0.9))), None, True, 5),
}  # fmt: skip


@pytest.mark.parametrize("trial", STORIES.values(), ids=STORIES.keys())
def test_a_killed_run_goes_on_and_computes_nothing_twice(tmp_path: Path, tiny: Path, trial: Trial) -> None:
    shutil.copy(tiny, tmp_path / "tiny.gguf")
    told = run_trial(tmp_path / "trial", trial, TASKS)
    assert told.starts <= 1 + told.late + sum(isinstance(step, Kill | Other | Erase) for step in trial.steps), told


def test_the_stories_kill_ten_nodes() -> None:
    steps = [step for trial in STORIES.values() for step in trial.steps]
    kills = [step.kill if isinstance(step, Other) else step for step in steps]
    assert sum(isinstance(kill, Kill) and kill.whom == "node" for kill in kills) >= 10


def test_a_story_follows_from_its_seed_and_has_the_kills_that_were_asked_for() -> None:
    told = trials(40, seed=7, tasks=200)
    assert told == trials(40, seed=7, tasks=200) != trials(40, seed=8, tasks=200)
    assert sum(trial.kills for trial in told) >= 40
    steps = [type(step) for trial in told for step in trial.steps]
    assert set(steps) == {Kill, Other, Erase, Verify, Away}


def test_a_run_that_ends_otherwise_than_it_should_is_noticed(tmp_path: Path, tiny: Path) -> None:
    shutil.copy(tiny, tmp_path / "tiny.gguf")
    missing_row = Trial((), poisoned=8, has_report=False, seed=0)  # the row that should crash isn't there
    with pytest.raises(Broken, match="ended with 0, expected 3"):
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
