"""What left this machine is listed from the log, and that nothing left is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from gx.cli import audit
from gx.cli.audit import total
from gx.core import event as e
from gx.core.errors import NotFound
from tests.verbs.writing import ONE, TWO, two_runs

Call = Callable[..., Result]


@pytest.fixture
def departed(tmp_path: Path) -> Path:
    """Two runs, of which one sent a task away twice."""
    w = two_runs()
    task = w.queue(ONE, 9, "T-9")
    w.lease(ONE, task)
    for attempt, to in ((1, "modal:L4"), (2, "modal:A10")):
        w.bodies.append(
            e.Egress(
                run=ONE, task=task, attempt=attempt, to=to, fields=("item.id", "item.text"), bytes=700 + attempt,
                digest=f"{attempt}" * 32,
            )
        )  # fmt: skip
    w.write(tmp_path / ".gx")
    return tmp_path


@pytest.mark.usefixtures("departed")
def test_each_departure_is_a_row_with_the_names_of_what_it_was_made_from(call: Call) -> None:
    rows = [json.loads(line) for line in call(audit.register, "audit", "egress", ONE, "--json").stdout.splitlines()]
    assert [(row["attempt"], row["to"], row["bytes"], row["digest"]) for row in rows] == [
        (1, "modal:L4", 701, "1" * 32),
        (2, "modal:A10", 702, "2" * 32),
    ]
    assert all(row["fields"] == ["item.id", "item.text"] and row["step"] == "s" and row["at"] for row in rows)


@pytest.mark.usefixtures("departed")
def test_a_table_ends_in_what_left_in_all(call: Call) -> None:
    result = call(audit.register, "audit", "egress", ONE[:10], "--plain")
    assert "item.id, item.text" in result.stdout and "modal:A10" in result.stdout and "1" * 12 in result.stdout
    assert result.stderr.strip() == f"1 task in 2 turns of {ONE} left this machine for modal:A10, modal:L4: 1,403 bytes"


@pytest.mark.usefixtures("departed")
def test_that_nothing_left_is_said_in_words(call: Call) -> None:
    result = call(audit.register, "audit", "egress", TWO, "--plain")
    assert result.stdout == ""
    assert result.stderr.strip() == f"nothing of {TWO} left this machine"


@pytest.mark.usefixtures("departed")
def test_a_run_that_there_is_not_is_an_error(call: Call) -> None:
    with pytest.raises(NotFound):
        call(audit.register, "audit", "egress", "nothing-like-it")


def test_what_went_to_a_rehearsal_did_not_leave_this_machine() -> None:
    row = {"to": "rehearsal", "task": "t", "sort": None, "bytes": 355}
    assert total("r", [row]) == "1 task in 1 turn of r went to a rehearsal and did not leave this machine: 355 bytes"


def test_a_run_that_was_rehearsed_and_then_rented_tells_apart_what_left_this_machine() -> None:
    rows = [
        {"to": to, "task": task, "sort": None, "bytes": size}
        for to, task, size in (("rehearsal", "a", 300), ("rehearsal", "b", 55), ("modal", "b", 70))
    ]
    assert total("r", rows) == (
        "1 task in 1 turn of r left this machine for modal: 70 bytes; "
        "2 tasks in 2 turns of r went to a rehearsal and did not leave this machine: 355 bytes"
    )
