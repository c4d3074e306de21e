"""A rehearsed burst in a real node: the bench here, and containers of the deployed app on a loopback, share a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from cloud.rehearsal import Rehearsed
from gx.core import event as e
from gx.core.terms import Terms
from gx.node import wire
from gx.settings import Settings
from tests import nodes
from tests.node.served import ROWS, Served, ended, records, serve

REHEARSED = Terms(mode="force", gpu=("L4",), max_containers=2, is_rehearsal=True)
COLD = ROWS.replace("temperature: 1", "temperature: 0")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[Served]:
    """A node with one slot, so that this machine is not done before containers are up."""
    folder = tmp_path_factory.mktemp("rehearsed")
    (folder / "tiny.gguf").symlink_to(tiny)
    with serve(folder / "ws", Settings(threads=1, slots=1)) as served:
        yield served
        served.end_runs()


class Shared(NamedTuple):
    """A run that containers had a part in, and its records."""

    run: str
    records: list[dict[str, Any]]


@pytest.fixture(scope="module")
def shared(served: Served) -> Shared:
    started = served.submit(recipe(COLD, "shared", 150), rows=120, burst=REHEARSED)
    found = records(watched(served, started.run))
    ended(served, started.run)
    return Shared(started.run, found)


def recipe(text: str, name: str, tokens: int) -> str:
    return text.replace("NAME", name).replace("TOKENS", str(tokens))


def left_running(served: Served) -> list[str]:
    """The loopback and its containers, whose files are below the workspace."""
    return [p.command for p in nodes.processes() if str(served.folder / "rehearsals") in p.command]


def watched(served: Served, run: str) -> list[wire.Frame]:
    with served.watched(run) as frames:
        return list(frames)


def test_a_run_is_shared_with_containers_and_nothing_is_left_of_them(served: Served, shared: Shared) -> None:
    run, found = shared
    assert len({record["id"] for record in found}) == len(found) == 120
    assert {record["status"] for record in found} == {"succeeded"}
    succeeded = served.bodies(run, e.TaskSucceeded)
    assert {body.worker for body in succeeded} == {"edge", "cloud"} and len(succeeded) == 120
    refused = [body.reason for body in served.bodies(run, e.RentRefused)]
    assert all("there is no answer" in reason for reason in refused), "a busy machine may take its time"
    lost = served.bodies(run, e.AttemptLost)
    assert all(body.reason.startswith(("taken back", "no call was made")) for body in lost), lost
    calls = {(body.task, body.attempt) for body in served.bodies(run, e.CallMade)}
    assert {(b.task, b.attempt) for b in succeeded if b.worker == "cloud"} == calls - {
        (b.task, b.attempt) for b in lost
    }
    leaving = {body.task for body in served.bodies(run, e.Egress)}
    assert {body.task for body in succeeded if body.worker == "cloud"} <= leaving
    rent = served.state(run).rent
    assert rent is not None and not rent.ledger.alive, "what it cost is settled"
    assert nodes.until(lambda: not left_running(served)), left_running(served)
    report = msgspec.json.decode((served.folder / "rehearsals" / f"{run}.json").read_bytes(), type=Rehearsed)
    assert report.bills[0].gpu == "L4" and 1 <= report.containers <= 2
    assert report.calls["succeeded"] >= len(calls) - len(lost) and (sum(report.calls.values()) == len(calls) or refused)


def test_a_run_that_is_given_up_leaves_no_call_and_no_process(served: Served) -> None:
    started = served.submit(recipe(ROWS, "dropped", 490), rows=121, burst=REHEARSED, is_detached=True)
    served.until(lambda: len(served.bodies(started.run, e.CallMade)) > 2)
    served.tell(started.run, "cancel")
    ended(served, started.run)
    assert served.state(started.run).status.value == "cancelled" and not served.state(started.run).leased
    assert nodes.until(lambda: not left_running(served)), left_running(served)
    report = msgspec.json.decode((served.folder / "rehearsals" / f"{started.run}.json").read_bytes(), type=Rehearsed)
    assert not {"running", "queued"} & set(report.calls), report.calls


def test_a_container_answers_as_this_machine_does(served: Served, shared: Shared) -> None:
    """At temperature 0 on one slot, a decode has the same company there and here."""
    there = {record["id"]: record["output"] for record in shared.records}
    tasks = served.state(shared.run).tasks
    rented = [tasks[b.task] for b in served.bodies(shared.run, e.TaskSucceeded) if b.worker == "cloud"][:5]
    assert rented, "containers took part"
    rows = [{"id": task.row_id, "text": f"Say {task.index}."} for task in rented]
    (served.folder.parent / "again.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = served.submit(recipe(COLD, "here", 150), inputs="again.jsonl", fresh=True)
    here = {record["id"]: record["output"] for record in records(watched(served, again.run))}
    assert {body.worker for body in served.bodies(again.run, e.TaskSucceeded)} == {"edge"}
    assert here == {name: there[name] for name in here} and len(here) == len(rented)
