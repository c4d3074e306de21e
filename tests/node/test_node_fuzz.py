"""The random requests of `tests.fuzz.node_api`, a few hundred of them, with a fixed seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.fuzz.node_api import fuzz

ENOUGH = {"POST /v1/runs 200", "POST /v1/runs 400"}


def test_random_requests_find_no_bug_and_change_nothing_without_an_event(tmp_path: Path, long: Path) -> None:
    """What is drawn depends on the modules that are loaded, so a seed may bring no run that is accepted."""
    answered = Counter[str]()
    for seed in (4, 5, 6):
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        (folder / "tiny.gguf").symlink_to(long)
        outcome = fuzz(folder, requests=300, seed=seed)
        assert not outcome.found, "\n".join(outcome.found)
        assert outcome.answered.total() == 300
        answered += outcome.answered
        if answered.keys() >= ENOUGH:
            break
    assert answered.keys() >= ENOUGH, str(answered)
