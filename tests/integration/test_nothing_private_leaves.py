"""Whatever a recipe marks as private: not a byte of it reaches the control plane, nor any container.

A real node rents real containers from a loopback that records each message, with its headers, and keeps all that was
uploaded and all that its containers were given. All of that is searched for what was planted: marks in the fields of
rows, in the prompts of private steps and the personas of private agents, and in the results of private tasks.

`GX_PRIVACY_EXAMPLES=50` tries so many recipes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cloud import deploy
from cloud.rented import Account
from gx.core import event as e
from gx.core.message import Label
from gx.core.terms import Terms
from gx.core.view import RunState
from gx.settings import Settings
from tests import nodes
from tests.cloud.world import World, world
from tests.node.served import Served, ended, records, serve

EXAMPLES = int(os.environ.get("GX_PRIVACY_EXAMPLES", "2"))
pytestmark = pytest.mark.timeout(120 + 60 * EXAMPLES)
FIELDS = ("email", "text", "note")
ROWS = 8
FORCED = Terms(mode="force", gpu=("L4",), max_containers=1, usd=5.0)
LONG = {
    "type": "object",
    "required": ["z"],
    "properties": {"z": {"type": "string", "minLength": 500, "maxLength": 600}},
}
OF_ROW = ("{{ %s.email }}", "{{ %s.text }}", "{{ %s.note | upper }}", "{{ %s.deep.email }}", "{{ %s | tojson }}")
OF_RESULT = ("{{ %s.x }}", "{{ %s.y }}", "{{ %s | tojson }}", "{{ %s.x | lower }} {{ %s.y }}")


# ── recipes ──────────────────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    """A step that keeps this machine busy until containers are up, and behind it a few with marks here and there."""
    busy = {"id": "busy", "for_each": "inputs", "matrix": {"n": list(range(3))}, "agent": "long"}
    open_ = {"id": "open", "for_each": "inputs", "agent": "short", "prompt": "shared-prompt-open {{ id }}"}
    steps: list[dict[str, Any]] = [busy | {"prompt": "Write {{ id }} {{ matrix.n }}."}, open_]
    agents: dict[str, Any] = {"long": {"model": "m", "persona": "You write.", "output": LONG}}
    agents["short"] = {"model": "m", "persona": "You are brief.", "sampling": {"max_tokens": 8}}
    for number in range(draw(st.integers(2, 4))):
        name = f"s{number}"
        step: dict[str, Any] = {"id": name, "agent": f"a{number}", "for_each": "inputs"}
        text = [f"shared-prompt-{name}", "{{ id }}"]  # no two tasks alike, else one is answered by the other
        before = draw(st.sampled_from(["", *(f"s{n}" for n in range(number))]))
        if before:
            step["for_each"] = before
            text += [part.replace("%s", "item") for part in draw(st.sets(st.sampled_from(OF_RESULT), max_size=1))]
        source = "input" if before else "item"
        text += [part.replace("%s", source) for part in [draw(st.sampled_from(OF_ROW))]]
        agents[f"a{number}"] = {"model": "m", "persona": f"persona-{name}.", "output": results_of(name)}
        if draw(st.integers(0, 3)) == 0:
            step["private"], text[0] = True, f"private-prompt-{name}"
        elif draw(st.integers(0, 3)) == 0:
            agents[f"a{number}"] |= {"private": True, "persona": f"private-persona-{name}."}
        step["prompt"] = " ".join(text)
        steps.append(step | draw(st.sampled_from([{}, {}, {"share": ["x"]}, {"share": True}])))
    private = draw(st.sets(st.sampled_from(FIELDS), min_size=1, max_size=2))
    recipe = {"version": 1, "name": "n", "models": {"m": "./tiny.gguf"}, "agents": agents, "steps": steps}
    return recipe | {"private": sorted(private)}


def results_of(step: str) -> dict[str, Any]:
    """A result with a mark that can be told from all others, and a text that only the model knows."""
    text = {"type": "string", "minLength": 200, "maxLength": 240}
    return {"type": "object", "required": ["x", "y"], "properties": {"x": {"const": f"result-{step}-x"}, "y": text}}


def row(number: int) -> dict[str, Any]:
    fields = {name: f"row-{number}-{name}-mark" for name in FIELDS}
    return {"id": f"r{number}"} | fields | {"deep": {"email": f"row-{number}-email-deep"}}


def planted(recipe: dict[str, Any], state: RunState, outputs: dict[str, Any]) -> set[str]:
    """All that may not leave: by the recipe for what is marked, and by the labels for what was made from that."""
    found = {f"row-{n}-{name}-" for n in range(ROWS) for name in recipe["private"]}
    found |= {f"private-prompt-{step['id']}" for step in recipe["steps"] if step.get("private")}
    found |= {f"private-persona-s{name[1:]}" for name, one in recipe["agents"].items() if one.get("private")}
    for step in recipe["steps"][2:]:
        tasks = [task for task in state.tasks.values() if task.step == step["id"]]
        share = step.get("share", ())
        if share is True:
            continue
        if "x" not in share and all(task.label is Label.private for task in tasks):
            found.add(f"result-{step['id']}-x")  # its schema says it too, so it must be private in all of them
        found |= {outputs[task.id]["y"] for task in tasks if task.label is Label.private}
    return found


# ── what the plane has ───────────────────────────────────────────────────────────────────────────────────────────


def crossed(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All bytes that reached the plane or a container: the messages, and every file but the interpreter's."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not (place == str(folder) and name == "image")]
        for name in files:
            yield str(Path(place, name).relative_to(folder)), Path(place, name).read_bytes().lower()


def forms(mark: str) -> set[bytes]:
    """How a mark may be written: as it is, escaped, in UTF-16, in hexadecimal, and in base64 wherever it begins."""
    raw = mark.lower().encode()
    coded = {base64.b64encode(b"\0" * shift + mark.encode())[4 * bool(shift) : -4].lower() for shift in range(3)}
    escaped = json.dumps(mark)[1:-1].lower().encode()
    return {raw, escaped, mark.lower().encode("utf-16-le"), raw.hex().encode(), *(one for one in coded if len(one) > 8)}


def found_in(folder: Path, marks: set[str]) -> list[str]:
    """Which marks are where."""
    wanted = [(mark, form) for mark in marks for form in forms(mark)]
    return [f"{mark} in {name}" for name, content in crossed(folder) for mark, form in wanted if form in content]


# ── the claim ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[World]:
    """A control plane that records, with the app and the model."""

    sha256 = hashlib.sha256(tiny.read_bytes()).hexdigest()

    async def furnish(made: World) -> None:
        token = made.environ
        account = Account(token_id=token["MODAL_TOKEN_ID"], token_secret=token["MODAL_TOKEN_SECRET"], url=made.url)
        await deploy.deploy(account)
        await deploy.upload(account, sha256, tiny)

    with world(tmp_path_factory.mktemp("recorded") / "plane", is_recorded=True) as made:
        anyio.run(furnish, made)
        yield made


@contextmanager
def held_up() -> Iterator[None]:
    """This machine's benches do nothing as long as the block lasts."""
    benches = [bench.pid for bench in nodes.benches_of(os.getpid())]
    for pid in benches:
        nodes.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in benches:
            nodes.kill(pid, signal.SIGCONT)


def rented_by(served: Served, run: str) -> set[str]:
    """The steps of which a container did a task."""
    tasks = served.state(run).tasks
    return {tasks[b.task].step for b in served.bodies(run, e.TaskSucceeded) if b.worker == "cloud"}


def test_no_byte_of_what_is_private_reaches_the_plane_or_a_container(plane: World, tiny: Path) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None,
        phases=[Phase.generate],
    )  # fmt: skip
    @given(recipes())
    def holds(recipe: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, plane.environ):
            place = Path(folder)
            (place / "tiny.gguf").symlink_to(tiny)
            (place / "rows.jsonl").write_text("".join(json.dumps(row(n)) + "\n" for n in range(ROWS)))
            with serve(place / "ws", Settings(threads=1, slots=4)) as served:
                lived(recipe, served)

    def lived(recipe: dict[str, Any], served: Served) -> None:
        started = served.submit(json.dumps(recipe), inputs="rows.jsonl", burst=FORCED)
        with served.watched(started.run) as frames:
            served.until(lambda: served.bodies(started.run, e.TaskLeased))
            with held_up():  # so that it isn't done before a container is up
                assert nodes.until(lambda: rented_by(served, started.run) - {"busy"}, 60)
            records(list(frames))
        assert ended(served, started.run).run.failed == 0
        state = served.state(started.run)
        succeeded = served.bodies(started.run, e.TaskSucceeded)
        blobs = served.node.log.blobs({body.output for body in succeeded})
        outputs = {body.task: msgspec.json.decode(blobs[body.output]) for body in succeeded}
        marks = planted(recipe, state, outputs)
        leaked = found_in(plane.folder, marks)
        assert not leaked, (leaked[:5], recipe)
        rented = [state.tasks[body.task] for body in succeeded if body.worker == "cloud"]
        assert not any(task.label is Label.private for task in rented)
        travelled = {f"shared-prompt-{task.step}" for task in rented if task.step != "busy"}
        assert {mark.partition(" in ")[0] for mark in found_in(plane.folder, travelled)} == travelled, "it is looked at"
        seen["rented"] += len(rented)
        seen["after the first step"] += len(travelled)
        seen["marks"] += len(marks)

    holds()
    assert seen["rented"] and seen["after the first step"] and seen["marks"], seen
