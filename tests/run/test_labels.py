"""A turn is private if anything private was read to make it, and so is what is made from its answer."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gx.core import event as e
from gx.core.message import Answer, Label, Turn, Usage
from gx.core.task import Status
from gx.core.view import RunState
from gx.run import egress, scheduler
from gx.run.egress import PrivateTurn
from gx.run.inputs import open_inputs
from gx.run.inputs.lines import Line
from gx.run.inputs.rows import Row, json_row
from tests.desk import Desk, open_desk
from tests.fakes import ScriptedWorker
from tests.run.test_dispatcher import until

pytestmark = pytest.mark.anyio

HEAD = """\
version: 1
name: mail
private: [email]
models: {m: x}
agents:
  a: {output: {type: object, required: [x, y], properties: {x: {type: string}, y: {type: string}}}}
  b: {private: true, persona: You stay here.}
  t: {persona: You write.}
steps:
"""
ROWS = [{"id": f"T{n}", "email": f"ann{n}@example.org", "text": f"text {n}"} for n in range(2)]


def says_which(turn: Turn) -> Answer:
    """An answer with two fields that name the task."""
    is_object = turn.output_schema is not None
    value: Any = {"x": f"{turn.task}.x", "y": f"{turn.task}.y"} if is_object else f"{turn.task}.text"
    return Answer(value=msgspec.Raw(json.dumps(value).encode()), usage=Usage(tokens_in=1, tokens_out=1))


async def labels(folder: Path, steps: str, rows: list[dict[str, Any]] | None = None) -> dict[str, set[str]]:
    """The labels of the turns of each step, as the worker, the events and the state agree."""
    async with open_desk(folder, ScriptedWorker(says_which)) as desk:
        state, _ = await desk.run(HEAD + steps, ROWS if rows is None else rows)
        assert state.count(Status.failed) == 0
        return labels_of(desk, state)


def labels_of(desk: Desk, state: RunState) -> dict[str, set[str]]:
    prepared = {body.task: body.label for body in desk.bodies(e.TaskPrepared)}
    found: dict[str, set[str]] = {}
    for turn in desk.worker.submitted:
        label = Label.private if isinstance(turn, PrivateTurn) else Label.shared
        task = state.tasks[turn.task]
        assert task.label is prepared[turn.task] is label
        found.setdefault(task.step, set()).add(label.value)
    return found


@pytest.mark.parametrize(
    ("step", "label"),
    [
        ('{id: s, for_each: inputs, agent: t, prompt: "{{ item.text }} of {{ id }}"}', "shared"),
        ('{id: s, for_each: inputs, agent: t, prompt: "{{ item.email }}"}', "private"),
        ('{id: s, for_each: inputs, agent: t, prompt: "{{ item }}"}', "private"),
        ('{id: s, for_each: inputs, agent: t, prompt: "{{ item.text }}", private: true}', "private"),
        ('{id: s, for_each: inputs, agent: b, prompt: "{{ item.text }}"}', "private"),
        ('{id: s, for_each: inputs, agent: t, prompt: "{{ item.text }}", when: "item.email"}', "private"),
        ('{id: s, for_each: inputs, agent: t, prompt: "{{ item.text }}", when: "item.text"}', "shared"),
        ('{id: s, for_each: inputs, agent: t, prompt: "{{ matrix.n }}", matrix: {n: [1, 2]}}', "shared"),
        ("{id: s, agent: t, prompt: Hello}", "shared"),
    ],
)
async def test_a_turn_is_private_if_its_step_or_agent_is_or_what_it_reads_of_a_row(
    tmp_path: Path, step: str, label: str
) -> None:
    assert await labels(tmp_path, f"  - {step}\n") == {"s": {label}}


async def test_only_the_combinations_of_a_private_agent_are_private(tmp_path: Path) -> None:
    step = '  - {id: s, for_each: inputs, agent: "{{ matrix.w }}", matrix: {w: [t, b]}, prompt: "{{ item.text }}"}\n'
    async with open_desk(tmp_path, ScriptedWorker(says_which)) as desk:
        state, _ = await desk.run(HEAD + step, ROWS)
        queued = {body.task: body.label for body in desk.bodies(e.TaskQueued)}
    for task in state.tasks.values():
        assert (task.label is Label.private) == ((task.matrix or {})["w"] == "b")
        assert queued[task.id] is task.label


FIRST = '  - {{id: read, for_each: inputs, agent: a, prompt: "{{{{ item.email }}}}"{more}}}\n'


@pytest.mark.parametrize(
    ("share", "step", "label"),
    [
        ("", '{id: s, for_each: read, agent: t, prompt: "{{ item.x }}"}', "private"),
        ("", '{id: s, for_each: read, agent: t, prompt: "{{ input.text }}"}', "shared"),
        ("", '{id: s, for_each: read, agent: t, prompt: "{{ input.text }}", when: "item.x"}', "private"),
        (", share: [x]", '{id: s, for_each: read, agent: t, prompt: "{{ item.x }}"}', "shared"),
        (", share: [x]", '{id: s, for_each: read, agent: t, prompt: "{{ item.y }}"}', "private"),
        (", share: [x]", '{id: s, for_each: read, agent: t, prompt: "{{ item }}"}', "private"),
        (", share: true", '{id: s, for_each: read, agent: t, prompt: "{{ item }}"}', "shared"),
        ("", '{id: s, reduce: read, agent: t, prompt: "{% for i in items %}{{ i.x }}{% endfor %}"}', "private"),
        (", share: [x]", '{id: s, reduce: read, agent: t, prompt: "{% for i in items %}{{ i.x }}{% endfor %}"}',
         "shared"),
        (", share: [x]", '{id: s, reduce: read, agent: t, prompt: "{{ items | tojson }}"}', "private"),
        ("", '{id: s, reduce: read, agent: t, prompt: "{{ items | length }}"}', "shared"),
        ("", '{id: s, needs: [read], agent: t, prompt: "{{ steps.read[0].y }}"}', "private"),
        (", share: [y]", '{id: s, needs: [read], agent: t, prompt: "{{ steps.read[0].y }}"}', "shared"),
        ("", '{id: s, needs: [read], agent: t, prompt: Hello}', "shared"),
        ("", '{id: s, for_each: read, matrix: {n: [1, 2]}, agent: t, prompt: "{{ item.x }}"}', "private"),
    ],
)  # fmt: skip
async def test_what_is_made_from_a_private_result_is_private_until_share_names_the_field(
    tmp_path: Path, share: str, step: str, label: str
) -> None:
    found = await labels(tmp_path, FIRST.format(more=share) + f"  - {step}\n")
    assert found == {"read": {"private"}, "s": {label}}


async def test_what_a_result_is_made_for_is_found_through_a_matrix_and_a_second_step(tmp_path: Path) -> None:
    steps = """\
  - {id: one, for_each: inputs, agent: "{{ matrix.w }}", matrix: {w: [t, b]}, prompt: "{{ item.text }}"}
  - {id: two, for_each: one, agent: t, matrix: {n: [1, 2]}, prompt: "{{ item }} {{ matrix.n }}"}
"""
    async with open_desk(tmp_path, ScriptedWorker(says_which)) as desk:
        state, _ = await desk.run(HEAD + steps, ROWS)
        labels_of(desk, state)
    two = state.steps["two"].tasks
    assert len(two) == 8
    assert all((task.label is Label.private) == ((task.matrix or {})["w"] == "b") for task in two)


async def test_the_higher_levels_of_a_reduce_read_its_own_private_answers(tmp_path: Path) -> None:
    rows = [{"id": f"T{n}", "email": "e" * 60, "text": f"{n}"} for n in range(8)]
    steps = """\
  - {id: read, for_each: inputs, agent: short, prompt: "{{ item.email }} {{ item.text }}"}
  - {id: s, reduce: read, agent: short, prompt: "{% for i in items %}{{ i }}{% endfor %}"}
"""
    head = HEAD.replace("  t: {", "  short: {sampling: {max_tokens: 8}}\n  t: {")
    async with open_desk(tmp_path, ScriptedWorker(says_which, context=32)) as desk:
        state, _ = await desk.run(head + steps, rows)
        assert labels_of(desk, state)["s"] == {"private"}
    assert max(task.level for task in state.steps["s"].tasks) >= 1


MANY = [{"id": f"T{n}", "email": f"ann{n}", "text": f"text {n}"} for n in range(20)]


@pytest.mark.parametrize(
    ("rows", "prompt", "label"),
    [
        (MANY, "{{ item.text }}", "shared"),
        (MANY, "{{ item.email if item.text == 'text 3' }}{{ item.text }}", "private"),
        (ROWS, "{{ item.text }}", "shared"),
        (ROWS, "{{ item.text }}{{ item.email }}", "private"),
    ],
)
async def test_rows_that_a_choice_is_compared_with_count_as_read(
    tmp_path: Path, rows: list[dict[str, str]], prompt: str, label: str
) -> None:
    def chooses(turn: Turn) -> Answer:
        return Answer(value=msgspec.Raw(b'"p"'), usage=Usage())

    head = HEAD.replace("  t: {", "  c: {output: {enum: [p, q]}, choose: calibrated}\n  t: {")
    step = f'  - {{id: s, for_each: inputs, agent: c, prompt: "{prompt}"}}\n'
    async with open_desk(tmp_path, ScriptedWorker(chooses)) as desk:
        state, _ = await desk.run(head + step, rows)
        assert desk.worker.submitted[0].baselines
        assert labels_of(desk, state) == {"s": {label}}


def batch(number: int, **body: Any) -> Row:
    messages = [{"role": "user", "content": f"Hello {number}"}]
    line = json.dumps({"custom_id": f"c{number}", "body": {"messages": messages, **body}}).encode()
    read = json_row(Line(number=number + 1, content=line, size=len(line)), 1 << 20)
    assert read.is_batch
    return Row(index=number, id=read.id or "", value=read.value, is_batch=True)


@pytest.mark.parametrize("prompt", ["", ', prompt: "{{ item.text }}"'])
async def test_a_batch_row_is_private_as_a_whole_if_a_private_field_is_named_in_it(tmp_path: Path, prompt: str) -> None:
    rows = [batch(0), batch(1, metadata={"email": "ann@example.org"})]
    async with open_desk(tmp_path, ScriptedWorker(says_which)) as desk:
        state, _ = await desk.run(HEAD + f"  - {{id: s, for_each: inputs, agent: t{prompt}}}\n", iter(rows))
    assert [task.label.value for task in state.steps["s"].tasks] == ["shared", "private"]


async def test_an_id_that_says_a_private_field_is_private(tmp_path: Path) -> None:
    step = '  - {id: s, for_each: inputs, agent: t, prompt: "{{ id }}"}\n'
    async with open_desk(tmp_path, ScriptedWorker(says_which)) as desk:
        state, _ = await desk.run(HEAD.replace("[email]", "[id]") + step, ROWS)
        assert labels_of(desk, state) == {"s": {"private"}}


async def test_an_answer_from_the_log_has_the_label_of_the_task_that_needs_it_now(tmp_path: Path) -> None:
    open_recipe = HEAD.replace("private: [email]\n", "")
    step = '  - {id: s, for_each: inputs, agent: t, prompt: "{{ item.email }}"}\n'
    step += '  - {id: next, for_each: s, agent: t, prompt: "next {{ item }}"}\n'
    async with open_desk(tmp_path, ScriptedWorker(says_which)) as desk:
        await desk.run(open_recipe + step, ROWS, run="one")
        asked = len(desk.worker.submitted)
        state, _ = await desk.run(HEAD + step, ROWS, run="two")
        assert len(desk.worker.submitted) == asked and state.reused == 4
        assert {task.label for task in state.tasks.values()} == {Label.private}
        again, _ = await desk.run(open_recipe + step, ROWS, run="three")
        assert {task.label for task in again.tasks.values()} == {Label.shared}
        rows = desk.log.file.ask("SELECT DISTINCT label FROM tasks WHERE run = 'two'", [])
    assert rows == [("private",)]


async def test_a_row_that_is_too_deep_to_be_looked_through_fails_and_no_other(tmp_path: Path) -> None:
    content = b'{"id":"deep","text":' + b"[" * 600 + b"]" * 600 + b'}\n{"id":"flat","text":"x"}\n'
    source = open_inputs("-", base_dir=tmp_path, fmt="jsonl", stdin=io.BytesIO(content))
    step = '  - {id: s, for_each: inputs, agent: t, prompt: "{{ item.text }}"}\n'
    async with open_desk(tmp_path) as desk:
        _, records = await desk.run(HEAD + step, source.rows())
    assert {r["id"]: r["status"] for r in records} == {"0": "failed", "flat": "succeeded"}


async def test_prompts_of_private_turns_are_private_blobs(tmp_path: Path) -> None:
    steps = FIRST.format(more="") + '  - {id: s, for_each: inputs, agent: t, prompt: "{{ item.text }}"}\n'
    async with open_desk(tmp_path, ScriptedWorker(says_which)) as desk:
        await desk.run(HEAD + steps, ROWS)
        found = desk.log.file.ask("SELECT label, decode(bytes) FROM blobs", [])
    said = {text: label for label, text in found}
    assert said["ann0@example.org"] == "private" and said["text 0"] == "shared"


async def test_what_may_travel_is_known_again_after_a_restart(tmp_path: Path) -> None:
    steps = FIRST.format(more="") + '  - {id: s, for_each: read, agent: t, prompt: "{{ item.x }}"}\n'
    steps += '  - {id: o, for_each: read, agent: t, prompt: "{{ input.text }}"}\n'

    def first_step_only(turn: Turn) -> Answer | None:
        return None if turn.output_schema is None else says_which(turn)

    worker = ScriptedWorker(first_step_only)
    async with open_desk(tmp_path, worker) as desk:
        await desk.begin(HEAD + steps, ROWS)
        await until(lambda: len(worker.running) == 4)
    other = ScriptedWorker(lambda turn: None)
    async with open_desk(tmp_path, other) as desk:
        active = await desk.begin(HEAD + steps, ROWS)
        await until(lambda: len(other.running) == 4)
        run = active.state
        for turn in other.submitted:
            task = run.tasks[turn.task]
            is_private = task.step == "s"
            assert isinstance(turn, PrivateTurn) == is_private
            assert scheduler.may_travel(run, turn.task, active.turns) == (not is_private)
            assert egress.fields(active.plan, run, task) == (("item.x",) if is_private else ("input.text",))


async def test_a_step_that_is_routed_to_a_private_agent_may_not_travel_any_more(tmp_path: Path) -> None:
    head = HEAD.replace("You stay here.", "You write.")  # the same prompt, and so the same key
    step = '  - {id: s, for_each: inputs, agent: t, prompt: "{{ item.text }}"}\n'
    worker = ScriptedWorker(lambda turn: None, leases=1)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(head + step, ROWS)
        await until(lambda: len(active.turns) == 2 and len(worker.running) == 1)
        (waiting,) = active.state.ready
        assert scheduler.may_travel(active.state, waiting, active.turns)
        desk.dispatcher.steer([e.StepRouted(run="r", step="s", agent="b")])
        await until(lambda: isinstance(active.turns.get(waiting), PrivateTurn))
        assert not scheduler.may_travel(active.state, waiting, active.turns)
        await until(lambda: active.state.tasks[waiting].label is Label.private)
