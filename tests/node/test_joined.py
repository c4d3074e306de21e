"""A client that joined another's run, and lost the node, gets that run again, though it is over by then."""

from __future__ import annotations

from typing import Any

from gx.core import event as e
from gx.node.client import Started
from gx.node.remote import of_run
from tests.node.served import PATIENCE_S, Served, recipe, records


def by_row(served: Served, run: str) -> dict[str, dict[str, Any]]:
    """The records of a run by row, in whichever order they come."""
    return {record["id"]: record for record in records(served.watch(run))}


def test_a_run_that_was_joined_is_asked_for_again_by_its_own_token(served: Served) -> None:
    mine, theirs = (
        served.asked(recipe("joined"), rows=3, token="aa" * 6),
        served.asked(recipe("joined"), rows=3, token="bb" * 6),
    )

    def submit(asked: object) -> Started:
        started: Started = served.client.ask("POST", "/v1/runs", asked, kind=Started, timeout_s=PATIENCE_S)
        return started

    run = submit(theirs).run
    assert submit(mine).run == run
    first = by_row(served, run)
    served.until(lambda: run not in served.inside(lambda: list(served.node.runs)))
    assert submit(of_run(served.client, run, mine)).run == run
    assert by_row(served, run) == first
    assert len(served.bodies(run, e.RunFinished)) == 1
