"""The mutations of `tests.fuzz.recipes`, a few hundred of them, with a fixed seed."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.fuzz.recipes import fuzz


def test_spoilt_recipes_and_inputs_end_in_a_place_or_in_records(tmp_path: Path, tiny: Path) -> None:
    shutil.copy(tiny, tmp_path / "tiny.gguf")
    outcome = fuzz(tmp_path, cases=160, executed=4, seed=20)
    assert not outcome.found, "\n".join(f"case {number}: {text}" for number, text in outcome.found)
    assert outcome.probed.total() == 160
    assert outcome.executed.total() >= 4
    assert {"recipe refused", "planned, no rows bad", "planned, some rows bad"} <= outcome.probed.keys()
