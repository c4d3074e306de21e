"""What a run searches its memory for: found once, put into the prompt by value, and cited from nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import anyio.lowlevel
import msgspec
import pytest

from gx.core import event as e
from gx.core.errors import ModelError
from gx.core.memory import Kind, Memory, Source
from gx.core.message import Answer, Failure, Label
from gx.core.view import RunStatus
from gx.run import egress
from gx.run.contents import blob_of
from gx.run.egress import PrivateTurn
from tests.desk import open_desk
from tests.fakes import ScriptedMemory, ScriptedWorker

pytestmark = pytest.mark.anyio

RECIPE = """
version: 1
name: asked
models: {m: x}
agents: {a: {model: m%s}}
steps:
  - id: s
    for_each: inputs
    agent: a
    prompt: "%s"
    memory: %s
"""


def recipe(prompt: str = "Q: {{ item.q }}", memory: str = "notes", agent: str = "") -> str:
    return RECIPE % (agent, prompt, memory)


def known(body: str, label: Label = Label.shared, **source: Any) -> Memory:
    uid = (body.encode().hex() + "0" * 16)[:16]
    return Memory(
        uid=uid, namespace="notes", kind=Kind.fact, body=body, at=0.0, seq=1, label=label, source=Source(**source)
    )


KEYS = known("The keys are under the mat.", path="home.md", heading="Keys")
TEA = known("Tea is at five.", by="ada")


async def test_what_was_found_stands_before_the_prompt_with_its_names_and_sources(tmp_path: Path) -> None:
    memory = ScriptedMemory(KEYS, TEA)
    async with open_desk(tmp_path, memory=memory) as desk:
        _, records = await desk.run(recipe(memory="{namespace: 'of {{ id }}', k: 7}"), [{"q": "keys?"}])
        (prepared,) = desk.bodies(e.TaskPrepared)
        began = next(event.seq for event in desk.log.read() if isinstance(event.body, e.RunCreated))
    assert records[0]["output"] == (
        "What is known already:\n[m1] (home.md: Keys) The keys are under the mat.\n[m2] (ada) Tea is at five."
        "\n\nQ: keys?"
    )
    assert [(one.uid, one.score, one.path) for one in prepared.found] == [
        (KEYS.uid, 1.0, "home.md"),
        (TEA.uid, 0.5, ""),
    ]
    (query,) = memory.asked
    assert (query.text, query.namespace, query.k, query.upto_seq) == ("Q: keys?", "of 0", 7, began)


async def test_a_prompt_that_names_what_was_found_says_where_it_stands(tmp_path: Path) -> None:
    prompt = "{% for m in memories %}<{{ m.id }} {{ m.text }} {{ m.date }}>{% endfor %}{{ item.q }}"
    memory = ScriptedMemory(KEYS, notes=("search is by words only",))
    async with open_desk(tmp_path, memory=memory) as desk:
        asked = "{namespace: n, query: 'where {{ item.q }}', live: true}"
        _, records = await desk.run(recipe(prompt, asked), [{"q": "k"}])
        (prepared,) = desk.bodies(e.TaskPrepared)
    assert records[0]["output"] == "<m1 The keys are under the mat. 1970-01-01>k"
    assert memory.asked[0].text == "where k" and memory.asked[0].upto_seq is None
    assert prepared.without == ("search is by words only",)


async def test_nothing_found_leaves_the_prompt_as_it_is(tmp_path: Path) -> None:
    async with open_desk(tmp_path, memory=ScriptedMemory()) as desk:
        _, records = await desk.run(recipe(), [{"q": "k"}])
        (prepared,) = desk.bodies(e.TaskPrepared)
    assert records[0]["output"] == "Q: k" and prepared.found == ()


async def test_what_was_found_is_part_of_the_key(tmp_path: Path) -> None:
    keys = set()
    for memory in (ScriptedMemory(KEYS), ScriptedMemory(TEA), ScriptedMemory(KEYS)):
        async with open_desk(tmp_path, memory=memory) as desk:
            state, records = await desk.run(recipe(), [{"q": "k"}], run=f"r{len(desk.bodies(e.RunCreated))}")
            (task,) = state.tasks.values()
            keys.add(task.key)
    assert len(keys) == 2 and records[0]["cached"]


async def test_a_run_that_goes_on_does_not_search_again_for_what_was_prepared(tmp_path: Path) -> None:
    stuck = ScriptedWorker(lambda turn: None)
    async with open_desk(tmp_path, stuck, memory=ScriptedMemory(KEYS)) as desk:
        await desk.dispatcher.commit([e.NodeStopped(epoch=1)], [blob_of(one.encode()) for one in (KEYS.body, "Keys")])
        await desk.begin(recipe(), [{"q": "k"}])
        while not stuck.submitted:
            await anyio.lowlevel.checkpoint()
    other = ScriptedMemory(TEA)
    async with open_desk(tmp_path, memory=other) as desk:
        active = await desk.begin(recipe(), [{"q": "k"}])
        (record,) = await desk.finish(active)
    assert "under the mat" in str(record.as_dict()["output"]) and other.asked == []


async def test_what_was_forgotten_since_is_not_put_into_a_prompt_again(tmp_path: Path) -> None:
    stuck = ScriptedWorker(lambda turn: None)
    async with open_desk(tmp_path, stuck, memory=ScriptedMemory(KEYS, TEA)) as desk:
        await desk.dispatcher.commit([e.NodeStopped(epoch=1)], [blob_of(TEA.body.encode())])
        await desk.begin(recipe(), [{"q": "k"}])
        while not stuck.submitted:
            await anyio.lowlevel.checkpoint()
    async with open_desk(tmp_path, memory=ScriptedMemory()) as desk:  # the log never had what KEYS says
        (record,) = await desk.finish(await desk.begin(recipe(), [{"q": "k"}]))
    assert record.as_dict()["output"] == "What is known already:\n[m1] (ada) Tea is at five.\n\nQ: k"


async def test_a_search_that_fails_fails_its_task_with_the_reason(tmp_path: Path) -> None:
    memory = ScriptedMemory(failure=ModelError("two models", code="memory.mixed"))
    async with open_desk(tmp_path, memory=memory) as desk:
        _, records = await desk.run(recipe(), [{"q": "k"}, {"q": "l"}])
    assert [one["error"]["code"] for one in records] == ["memory.mixed"] * 2


async def test_a_bug_in_a_search_is_that_task_s_alone(tmp_path: Path) -> None:
    memory = ScriptedMemory(failure=cast(Any, ValueError("a bug")))
    async with open_desk(tmp_path, memory=memory) as desk:
        _, records = await desk.run(recipe(), [{"q": "k"}, {"q": "l"}])
        assert [one["error"]["code"] for one in records] == ["internal"] * 2
        state, _ = await desk.run(recipe(memory="''").replace("    memory: ''\n", ""), [{"q": "k"}])
    assert state.status is RunStatus.finished


async def test_a_task_that_is_skipped_searches_for_nothing(tmp_path: Path) -> None:
    memory = ScriptedMemory(KEYS)
    async with open_desk(tmp_path, memory=memory) as desk:
        text = recipe() + '    when: item.q == "yes"\n'
        await desk.run(text, [{"q": "yes"}, {"q": "no"}])
    assert [query.text for query in memory.asked] == ["Q: yes"]


CITING = ", output: {type: object, required: [sources], properties: {sources: {type: array, items: {x-from: %s}}}}"


@pytest.mark.parametrize(
    "name, values",
    [
        ("memories.id", ["m1", "m2"]),
        ("memories.path", ["home.md"]),
        ("memories.source", ["home.md: Keys", "ada"]),
    ],
)
async def test_an_answer_can_cite_what_was_found_and_nothing_else(tmp_path: Path, name: str, values: list[str]) -> None:
    worker = ScriptedWorker(lambda turn: Answer(value=msgspec.Raw(b'{"sources": []}')))
    async with open_desk(tmp_path, worker, memory=ScriptedMemory(KEYS, TEA)) as desk:
        await desk.run(recipe(agent=CITING % name), [{"q": "k"}])
    schema = worker.submitted[0].output_schema
    assert schema is not None and schema["properties"]["sources"]["items"] == {"enum": values}


async def test_without_a_memory_nothing_is_found_and_anything_may_be_cited(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: Answer(value=msgspec.Raw(b'{"sources": []}')))
    async with open_desk(tmp_path, worker) as desk:
        await desk.run(recipe(agent=CITING % "memories.id"), [{"q": "k"}])
        (prepared,) = desk.bodies(e.TaskPrepared)
    schema = worker.submitted[0].output_schema
    assert schema is not None and schema["properties"]["sources"]["items"] == {"type": "string"}
    assert prepared.found == () and "searched when the task runs" in prepared.without[0]


async def test_where_nothing_was_found_nothing_can_be_cited(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: Answer(value=msgspec.Raw(b'{"sources": []}')))
    async with open_desk(tmp_path, worker, memory=ScriptedMemory()) as desk:
        await desk.run(recipe(agent=CITING % "memories.id"), [{"q": "k"}])
        single = ", output: {type: object, required: [s], properties: {s: {x-from: memories.id}}}"
        _, records = await desk.run(recipe(agent=single), [{"q": "k"}], run="r2")
    schema = worker.submitted[0].output_schema
    assert schema is not None and schema["properties"]["sources"] == {"type": "array", "maxItems": 0}
    assert records[0]["error"]["code"] == "memory.nothing"


@pytest.mark.parametrize(
    "memories, private, is_private",
    [
        ((KEYS,), "", False),
        ((KEYS, known("A secret.", Label.private)), "", True),
        ((KEYS,), "private: [q]\n", True),  # what was asked is private, and so is what answers it
        ((), "private: [q]\n", True),
    ],
)
async def test_labels_go_from_what_was_found_to_the_turn(
    tmp_path: Path, memories: tuple[Memory, ...], private: str, is_private: bool
) -> None:
    worker = ScriptedWorker()
    prompt = "{{ memories | map(attribute='text') | join }}"
    asked = "{namespace: n, query: '{{ item.q }}'}"
    async with open_desk(tmp_path, worker, memory=ScriptedMemory(*memories)) as desk:
        active = await desk.begin(recipe(prompt, asked) + private, [{"q": "k", "open": 1}])
        await desk.finish(active)
        (prepared,) = desk.bodies(e.TaskPrepared)
    (turn,) = worker.submitted
    assert isinstance(turn, PrivateTurn) == is_private == (prepared.label is Label.private)


async def test_what_leaves_is_named_with_the_memories_that_are_in_it(tmp_path: Path) -> None:
    stuck = ScriptedWorker(lambda turn: None)
    async with open_desk(tmp_path, stuck, memory=ScriptedMemory(KEYS)) as desk:
        active = await desk.begin(recipe(), [{"q": "k"}])
        while not stuck.submitted:
            await anyio.lowlevel.checkpoint()
        (task,) = active.state.tasks.values()
        assert egress.fields(active.plan, active.state, task) == ("item.q", "memories", f"memories.{KEYS.uid}")


# ── remembering ──────────────────────────────────────────────────────────────────────────────────────────────────


LEARNER = """
version: 1
name: learns
models: {m: x}
agents: {a: {model: m}}
%s
steps:
  - {id: s, for_each: inputs, agent: a, prompt: "{{ item.q }}", remember: %s}
"""


def contents(desk: Any, one: e.Remembered) -> tuple[str, str, Label]:
    return one.namespace, desk.log.blobs([one.body])[one.body].decode(), one.label


async def test_a_result_is_remembered_in_the_commit_that_has_it(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        text = "{namespace: 'people/{{ item.who }}', kind: episode, text: '{{ item.who }}: {{ output }}'}"
        _, _ = await desk.run(LEARNER % ("", text), [{"q": "tea", "who": "ada"}])
        events = list(desk.log.read())
        done, kept = [next(ev for ev in events if isinstance(ev.body, t)) for t in (e.TaskSucceeded, e.MemoryWritten)]
        (one,) = kept.body.memories
        assert kept.seq == done.seq + 1 and kept.ts == done.ts
        assert contents(desk, one) == ("people/ada", "ada: tea", Label.shared)
        assert (one.run, one.task, one.by, kept.body.by) == ("r", done.body.task, "learns/s", f"task {done.body.task}")


async def test_one_fact_that_several_tasks_say_is_one_also_where_the_log_answers(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        for run in ("r1", "r2"):
            await desk.run(LEARNER % ("", "facts"), [{"q": "tea"}, {"q": "tea"}], run=run)
        kept = [one for body in desk.bodies(e.MemoryWritten) for one in body.memories]
        assert len(kept) == 4 and len({one.uid for one in kept}) == 1


async def test_what_is_empty_is_not_remembered(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        text = "{text: '{% if output == \"tea\" %}{{ output }}{% endif %}'}"
        await desk.run(LEARNER % ("", text), [{"q": "tea"}, {"q": "coffee"}])
        kept = [contents(desk, one) for body in desk.bodies(e.MemoryWritten) for one in body.memories]
    assert kept == [("default", "tea", Label.shared)]


async def test_what_came_of_something_private_is_remembered_as_private(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        await desk.run(LEARNER % ("private: [q]", "{namespace: a}"), [{"q": "tea"}], run="r1")
        await desk.run(
            LEARNER % ("private: [q]", "{namespace: b, text: 'row {{ item.open }}'}"), [{"q": "t", "open": 1}]
        )
        kept = [contents(desk, one) for body in desk.bodies(e.MemoryWritten) for one in body.memories]
    assert kept == [("a", "tea", Label.private), ("b", "row 1", Label.shared)]


async def test_a_result_that_cannot_be_remembered_fails_its_task(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        state, records = await desk.run(LEARNER % ("", "{text: '{{ output.fact }}'}"), [{"q": "tea"}])
        assert not desk.bodies(e.MemoryWritten) and len(desk.bodies(e.AttemptFailed)) == 1
    assert records[0]["error"]["code"] == "memory.result" and "fact" in records[0]["error"]["message"]
    assert state.spent_tokens == 12


async def test_a_failed_task_leaves_nothing(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: Failure(code="x", message="no", retryable=False))
    async with open_desk(tmp_path, worker) as desk:
        await desk.run(LEARNER % ("", "facts"), [{"q": "tea"}])
        assert not desk.bodies(e.MemoryWritten)
