"""The kills of `tests.soak.kill`, five of them: of gx as it starts and later, of its bench, with a poisoned row."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.soak.kill import Broken, Kill, Trial, run_trial

TASKS = 120


@pytest.mark.parametrize(
    "trial",
    [
        Trial((Kill("gx", None, 0.4), Kill("gx", 40, 0.5)), None, has_report=False),
        Trial((Kill("bench", 20, 0.3), Kill("gx", 70, 0.0)), None, has_report=True),
        Trial((Kill("bench", 30, 0.0),), 50, has_report=False),
    ],
    ids=["gx, gx", "bench, gx", "bench, and a row that kills it"],
)
def test_a_killed_run_goes_on_and_computes_nothing_twice(tmp_path: Path, tiny: Path, trial: Trial) -> None:
    shutil.copy(tiny, tmp_path / "tiny.gguf")
    told = run_trial(tmp_path / "trial", trial, TASKS)
    assert told.starts == 1 + sum(kill.whom == "gx" for kill in trial.kills)


def test_a_broken_promise_would_be_noticed(tmp_path: Path, tiny: Path) -> None:
    shutil.copy(tiny, tmp_path / "tiny.gguf")
    missing_row = Trial((), poisoned=TASKS, has_report=False)  # the row that should crash isn't there
    with pytest.raises(Broken, match="gx run ended with 0"):
        run_trial(tmp_path / "trial", missing_row, TASKS)
