"""The random requests of `tests.fuzz.node_api`, a few hundred of them, with a fixed seed."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.node_api import fuzz


def test_random_requests_find_no_bug_and_change_nothing_without_an_event(tmp_path: Path, long: Path) -> None:
    (tmp_path / "tiny.gguf").symlink_to(long)
    outcome = fuzz(tmp_path, requests=300, seed=4)
    assert not outcome.found, "\n".join(outcome.found)
    assert outcome.answered.total() == 300
    assert {"POST /v1/runs 200", "POST /v1/runs 400"} <= outcome.answered.keys(), str(outcome.answered)
