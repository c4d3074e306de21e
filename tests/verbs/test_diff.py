"""Two runs side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from gx.cli import diff
from gx.core.errors import NotFound
from gx.core.task import Status
from gx.run.history.diff import Brief, compare, is_same, pairs_of
from tests.verbs.test_spend import burst
from tests.verbs.writing import ONE, TWO

Call = Callable[..., Result]


def brief(row: str = "1", **more: Any) -> Brief:
    known: dict[str, Any] = {"step": "s", "matrix": None, "status": Status.succeeded, "output": "r1", "error": None}
    return Brief(id=row, **(known | more))


def test_each_row_says_how_it_differs_and_totals_come_last(place: Path, call: Call) -> None:
    *rows, totals = [json.loads(line) for line in call(diff.register, "diff", ONE, TWO).stdout.splitlines()]
    assert [(row["id"], row["verdict"]) for row in rows] == [
        ("T-1", "changed"), ("T-2", "same"), ("T-3", "same"), ("T-4", "only in left"),
    ]  # fmt: skip
    assert rows[0]["changes"] == [{"field": "output.category", "left": "bug", "right": "billing"}]
    assert (totals["same"], totals["changed"], totals["only_in_left"], totals["only_in_right"]) == (2, 1, 1, 0)
    left, right = totals["left"], totals["right"]
    assert (left["tokens_in"], right["tokens_in"], left["failed"], right["from_log"]) == (28, 7, 1, 1)


def test_text_shows_what_differs_only(place: Path, call: Call) -> None:
    text = call(diff.register, "diff", ONE, TWO, "--plain").stdout
    assert "T-1: changed\n  output.category: bug → billing\n" in text and "T-2" not in text
    assert text.endswith("rows: 2 same, 1 changed, 1 only in left\n")


def test_a_run_is_the_same_as_itself(place: Path, call: Call) -> None:
    assert call(diff.register, "diff", ONE, ONE, "--plain").stdout.endswith("rows: 4 same\n")


def test_rows_belong_together_by_id_step_and_matrix() -> None:
    left = [brief("1", matrix={"a": 1}), brief("1", matrix={"a": 2}), brief("3")]
    right = [brief("2"), brief("1", matrix={"a": 2})]
    assert list(pairs_of(left, right)) == [(left[0], None), (left[1], right[1]), (left[2], None), (None, right[0])]


def test_failures_are_alike_by_their_code() -> None:
    failed = brief(status=Status.failed, output=None, error=("timeout", "after 2.1 s"))
    assert is_same(failed, brief(status=Status.failed, output=None, error=("timeout", "after 2.2 s")))
    assert not is_same(failed, brief(status=Status.failed, output=None, error=("crashed", "")))
    row = compare(failed, brief(), {"r1": b'{"a": 1}'})
    assert [(c.field, c.left, c.right) for c in row.changes] == [
        ("status", "failed", "succeeded"), ("error", "timeout: after 2.1 s", None), ("output.a", None, 1),
    ]  # fmt: skip


def test_an_answer_that_was_erased_is_said_to_be() -> None:
    (change,) = compare(brief(), brief(output="r2"), {"r1": b'"text"'}).changes
    assert (change.field, change.left, change.right) == ("output", "text", "(erased)")


def test_a_run_that_there_is_not_is_refused(place: Path, call: Call) -> None:
    with pytest.raises(NotFound, match="nope"):
        call(diff.register, "diff", ONE, "nope")


def test_dollars_are_those_that_were_paid_and_a_rehearsal_has_none(tmp_path: Path, call: Call) -> None:
    burst().write(tmp_path / ".gx")
    totals = json.loads(call(diff.register, "diff", ONE, TWO).stdout.splitlines()[-1])
    assert (totals["left"]["usd"], totals["right"]["usd"]) == (pytest.approx(0.12), 0.0)
    assert "0.1200" in call(diff.register, "diff", ONE, TWO, "--plain").stdout
