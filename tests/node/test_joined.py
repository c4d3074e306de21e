"""What a client that joins another's run has of it, and what it may ask of one that has no client, or is ending."""

from __future__ import annotations

from typing import Any

import pytest

from gx.core import event as e
from gx.core.errors import NotFound, UsageError
from gx.core.view import RunStatus
from gx.node import liveruns
from gx.node.call import who_asks
from gx.node.client import Started
from gx.node.remote import of_run
from gx.node.status import NodeStatus
from tests.node.served import ENDLESS, PATIENCE_S, Served, ended, held, recipe, records


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


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose client is gone waits longer than a busy machine takes."""
    monkeypatch.setattr(liveruns, "REATTACH_S", PATIENCE_S)


def word(served: Served, run: str) -> str:
    """How `gx ps` says that the run stands."""
    status: NodeStatus = served.client.ask("GET", "/v1/node", kind=NodeStatus)
    return next(one.status for one in status.runs if one.run == run)


def test_a_live_run_that_is_asked_for_detached_goes_on_when_its_client_leaves(served: Served) -> None:
    text = held("asked for twice", tokens=40)
    run = served.submit(text, rows=6).run
    with served.watched(run) as frames:
        next(frames)
        assert served.submit(text, rows=6, is_detached=True).run == run
        served.until(lambda: served.state(run).is_detached)
    served.until(lambda: not served.inside(lambda: served.node.runs[run].n_clients))
    assert word(served, run) == "running"
    served.let_go(run)
    assert ended(served, run).run.status is RunStatus.finished
    assert [one.by for one in served.bodies(run, e.RunChanged) if one.is_detached] == [who_asks()]


@pytest.mark.usefixtures("patient")
def test_a_run_without_a_client_that_is_resumed_goes_on_by_itself(served: Served) -> None:
    run = served.submit(recipe("left alone"), rows=4).run
    assert word(served, run) == "unattended"
    served.tell(run, "resume")
    ended(served, run)
    assert len(served.bodies(run, e.RunFinished)) == 1


def test_a_run_that_is_ending_is_not_said_to_be_paused(served: Served) -> None:
    run = served.submit(recipe("ending", tokens=ENDLESS), rows=2, is_detached=True).run
    served.until(lambda: served.inside(lambda: served.node.runs[run].state.leased))
    served.tell(run, "drain")
    with pytest.raises(UsageError, match="is ending"):
        served.client.ask("POST", f"/v1/runs/{run}/pause")
    served.tell(run, "stop")
    assert ended(served, run).run.status is RunStatus.interrupted
    assert not served.bodies(run, e.RunPaused)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("verb", "body"),
    [("pause", None), ("change", {"priority": 2.0}), ("cancel", {"step": "s"}), ("requeue", {"step": "s"})],
)
def test_a_run_that_is_over_is_not_said_to_be_changed(served: Served, verb: str, body: dict[str, Any] | None) -> None:
    run = served.submit(recipe(f"over {verb}"), rows=0).run
    served.until(lambda: served.inside(lambda: served.node.runs[run].active.is_over))
    with pytest.raises(NotFound, match="is over"):
        served.client.ask("POST", f"/v1/runs/{run}/{verb}", body)


@pytest.mark.usefixtures("patient")
def test_the_start_of_several_ids_is_said_to_be_that(served: Served) -> None:
    runs = [served.submit(recipe(f"twin-{name}"), rows=1).run for name in ("one", "two")]
    with pytest.raises(UsageError, match="is the start of several ids") as refused:
        served.client.ask("POST", "/v1/runs/twin-/pause")
    assert all(run in str(refused.value) for run in runs)


def test_who_follows_a_run_is_told_that_somebody_paused_it(served: Served) -> None:
    run = served.submit(recipe("held up", tokens=ENDLESS), rows=2).run
    with served.watched(run) as frames:
        served.tell(run, "pause")
        told = next(frame for frame in frames if frame.progress is not None and frame.progress.notes)
        assert told.progress is not None and f"gx resume {run}" in told.progress.notes[0]
        served.tell(run, "cancel")
