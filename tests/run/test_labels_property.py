"""Whatever a recipe marks as private, or a memory is, no turn that may leave holds a byte of it.

Nor does a memory that is made of a result and may be shared.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gx.core import event as e
from gx.core.memory import Kind, Memory, Source
from gx.core.message import Answer, Label, Turn, Usage
from gx.core.view import RunState
from gx.flow.privacy import steps_private
from gx.run import egress
from gx.run.egress import PrivateTurn
from tests.desk import open_desk
from tests.fakes import ScriptedMemory, ScriptedWorker

FIELDS = ("id", "email", "text", "note")
OF_ROW = (
    "{{ %s.email }}", "{{ %s.text }}", "{{ %s.text }}", "{{ %s.note }}", "{{ %s['note'] | upper }}", "{{ %s }}",
    "{{ %s.deep.email }}", "{{ %s.deep.open }}", "{{ %s.deep | tojson }}", "{%% set z = %s %%}{{ z.note }}",
    "{%% for k, v in %s.items() %%}{{ v }}{%% endfor %%}", "{%% for d in %s.list %%}{{ d.open }}{%% endfor %%}",
    "{%% if %s.email is string %%}one{%% endif %%}", "{{ [%s] | map(attribute='email') | join }}",
    "{%% macro m(r) %%}{{ r.text }}{%% endmacro %%}{{ m(%s) }}",
)  # fmt: skip
OF_RESULT = (
    "{{ %s.x }}", "{{ %s.x }}", "{{ %s.y }}", "{{ %s | tojson }}", "{{ %s['y'] | default('none') }}", "{{ %s }}",
    "{%% set z = %s %%}{{ z['x'] }}",
)  # fmt: skip
OF_RESULTS = (
    "{%% for i in %s %%}{{ i.x }}{%% endfor %%}", "{{ %s | map(attribute='y') | join }}", "{{ %s | length }}",
    "{{ %s[0].x }}", "{{ %s | tojson }}", "{%% for i in %s %%}{{ i }}{%% endfor %%}",
    "{{ %s | selectattr('x') | list | length }}", "{%% for i in %s %%}{{ loop.index }}{%% endfor %%}",
)  # fmt: skip
OF_ANSWERS = (
    "{{ %s }}", "{{ %s | tojson }}", "{{ %s | length }}", "{%% for who in %s %%}{{ who }}{%% endfor %%}",
    "{%% for who, said in %s.items() %%}{{ who }}: {{ said.x }}{%% endfor %%}", "{{ %s.a.x }}", "{{ %s.x }}",
)  # fmt: skip
OF_MEMORIES = (
    "{% for m in memories %}{{ m.id }} {{ m.text }}{% endfor %}", "{{ memories | tojson }}", "{{ memories[-1:] }}",
    "{{ memories | map(attribute='source') | join }}", "{{ memories | length }}", "{% if memories %}some{% endif %}",
    "{% set z = memories %}{{ z | selectattr('kind', 'equalto', 'fact') | list }}", "",
)  # fmt: skip
QUERIES = ("{{ id }}", "what is known?", "{{ index }} {{ params }}")
REMEMBERED = ("{{ output.x }}", "{{ output }}", "{{ index }} {{ output.y }}", "{{ output | length }}", "known")
CONDITIONS = ("item.email != 'none'", "item.text | length > 0", "index >= 0", "item.x != ''", "item.y is defined")


def fragments(source: str, kinds: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from([kind % source for kind in kinds]), min_size=1, max_size=2)


@st.composite
def steps(draw: st.DrawFn, number: int, chains: dict[str, bool], of_rows: set[str]) -> dict[str, Any]:
    """A step after those in `chains`, which says of each whether its tasks go back to a row each.

    Those in `of_rows` take the rows themselves.
    """
    step: dict[str, Any] = {"id": f"s{number}", "agent": draw(st.sampled_from(["a", "b"]))}
    kinds = ["rows"] + (["results", "reduce", "needs"] * 2 if chains else [])
    kind = draw(st.sampled_from(kinds))
    before = draw(st.sampled_from(sorted(chains))) if chains else ""
    text = ["step", f"s{number}:"]
    conditions = list(CONDITIONS[:3])
    if kind == "rows":
        step["for_each"] = "inputs"
        text += draw(fragments("item", OF_ROW)) + draw(st.sampled_from([[], ["{{ id }}"], ["{{ index }}"]]))
    elif kind == "results":
        step["for_each"] = before
        text += draw(st.sampled_from([[], *[[one % "item"] for one in OF_RESULT]]))
        text += draw(fragments("input", OF_ROW)) if chains[before] and draw(st.booleans()) else []
        conditions = list(CONDITIONS[2:])
    elif kind == "reduce":
        step["reduce"] = before
        text += draw(fragments("items", OF_RESULTS))
        step |= draw(st.sampled_from([{}, {"combine": "s: {% for i in items %}{{ i.x }}{% endfor %}"}]))
    else:
        step |= {"needs": [before], "for_each": "inputs"}
        text += draw(fragments(f"steps.{before}", OF_RESULTS)) if draw(st.booleans()) else []
        text += draw(fragments(f"answers.{before}", OF_ANSWERS)) if before in of_rows and draw(st.booleans()) else []
    if kind != "reduce" and draw(st.booleans()):
        step["matrix"] = {"agent": ["a", "b"]}
        step["agent"] = "{{ matrix.agent }}"
    if kind != "reduce" and draw(st.integers(0, 3)) == 0:
        step["when"] = draw(st.sampled_from(conditions))
    if kind != "reduce" and draw(st.booleans()):
        queries = [{"query": query} for query in QUERIES] + [{"query": text[-1]}, {}]
        step["memory"] = {"namespace": "n", "k": draw(st.integers(1, 3))} | draw(st.sampled_from(queries))
        text = (text if draw(st.booleans()) else text[:2]) + [draw(st.sampled_from(OF_MEMORIES))]
    if draw(st.booleans()):
        step["remember"] = {"namespace": "made", "text": draw(st.sampled_from(REMEMBERED))}
    step["prompt"] = " ".join(text)
    step |= {"private": True} if draw(st.integers(0, 5)) == 0 else {}
    return step | draw(st.sampled_from([{}, {"share": ["x"]}, {"share": ["x", "y"]}, {"share": True}]))


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    made: list[dict[str, Any]] = []
    chains: dict[str, bool] = {}
    for number in range(draw(st.integers(1, 3))):
        of_rows = {step["id"] for step in made if step.get("for_each") == "inputs"}
        made.append(step := draw(steps(number, chains, of_rows)))
        source = step.get("for_each")
        chains[step["id"]] = source == "inputs" or chains.get(source, False)
    output = {
        "type": "object", "required": ["x", "y"], "properties": {"x": {"type": "string"}, "y": {"type": "string"}},
    }  # fmt: skip
    plain = {"output": output, "sampling": {"max_tokens": 8}}
    agents: dict[str, Any] = {name: plain | {"persona": f"You are {name}."} for name in "ab"}
    agents["b"] |= {"private": True} if draw(st.integers(0, 3)) == 0 else {}
    recipe = {"version": 1, "name": "n", "models": {"m": "x"}, "agents": agents, "steps": made}
    private = draw(st.sets(st.sampled_from(FIELDS), max_size=2))
    return recipe | ({"private": sorted(private)} if private else {})


def row(number: int) -> dict[str, Any]:
    deep = {"email": f"<row {number} email deep>", "open": f"<row {number} open>"}
    return {name: f"<row {number} {name}>" for name in FIELDS} | {"deep": deep, "list": [deep]}


def answer(turn: Turn) -> Answer:
    value = {name: f"<result {turn.task} {name}>" for name in "xy"}
    return Answer(value=msgspec.Raw(json.dumps(value).encode()), usage=Usage(tokens_in=1, tokens_out=1))


def memory(number: int, label: Label) -> Memory:
    source = Source(path=f"/home/<memory {number} {label.value} path>.md", heading=f"<memory {number} {label.value}>")
    body = f"<memory {number} {label.value} text>"
    return Memory(
        uid=f"{number:016x}", namespace="n", kind=Kind.fact, body=body, at=0.0, seq=1, label=label, source=source
    )


def secrets(recipe: dict[str, Any], state: RunState) -> set[str]:
    """The marks of all that is private: in rows, in memories, and in results of private tasks that nobody shares."""
    found = {f"<memory {number} private" for number in range(MEMORIES)}
    found |= {f"<row {n} {name}" for n in range(ROWS) for name in recipe.get("private", ())}
    shares = {step["id"]: step.get("share", ()) for step in recipe["steps"]}
    for task in state.tasks.values():
        if task.label is Label.private and (share := shares[task.step]) is not True:
            found |= {f"<result {task.id} {name}>" for name in "xy" if name not in share}
    return found


ROWS = 2
MEMORIES = 3
LABELS = st.one_of(
    st.lists(st.just(Label.shared), min_size=1, max_size=MEMORIES), st.lists(st.sampled_from(Label), max_size=MEMORIES)
)


def test_no_turn_that_may_leave_holds_anything_private() -> None:
    turns: Counter[str] = Counter()

    @settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(recipes(), st.sampled_from([4096, 48]), LABELS)
    def holds(recipe: dict[str, Any], context: int, labels: list[Label]) -> None:
        anyio.run(live, recipe, context, labels)

    async def live(recipe: dict[str, Any], context: int, labels: list[Label]) -> None:
        known = ScriptedMemory(*(memory(number, label) for number, label in enumerate(labels)))
        with tempfile.TemporaryDirectory() as folder:
            worker = ScriptedWorker(answer, context=context)
            async with open_desk(Path(folder), worker, memory=known) as desk:
                active = await desk.begin(json.dumps(recipe), [row(n) for n in range(ROWS)])
                await desk.finish(active)
                prepared = {body.task: body.label for body in desk.bodies(e.TaskPrepared)}
                kept = [one for body in desk.bodies(e.MemoryWritten) for one in body.memories]
                bodies = {ref: text.decode() for ref, text in desk.log.blobs([one.body for one in kept]).items()}
        state, plan = active.state, active.plan
        private = secrets(recipe, state)
        for one in kept:
            held = [mark for mark in private if mark in bodies[one.body]]
            assert one.label is Label.private or not held, held
            turns[f"{one.label.value} memories"] += 1
        outlook = steps_private(plan)
        for turn in worker.submitted:
            task = state.tasks[turn.task]
            is_private = isinstance(turn, PrivateTurn)
            assert is_private == (prepared[turn.task] is Label.private) == (task.label is Label.private)
            packed = msgspec.msgpack.encode(turn).decode("utf-8", "replace").lower()
            found = [mark for mark in private if mark.lower() in packed]
            assert is_private or not found, found
            if outlook[task.step].reason == "" and ".deep" not in plan.step(task.step).step.prompt:
                assert not is_private, (task.step, recipe["steps"])  # what was forecast to travel does
            if not is_private:
                event = egress.leaving(
                    turn, egress.fields(plan, state, task), run="r", task=turn.task, attempt=1, to="modal:L4"
                )
                assert b"<" not in msgspec.json.encode(event)
            turns["private" if is_private else "shared"] += 1
            turns["shared beside secrets"] += bool(private) and not is_private
            turns["with secrets"] += bool(found)
            turns["shared with memories"] += not is_private and "<memory" in packed

    holds()
    asked = turns["private"] + turns["shared"]
    assert min(turns["shared memories"], turns["private memories"], turns["shared with memories"]) > 0, turns
    assert turns["shared beside secrets"] > asked / 20 and turns["with secrets"] > asked / 20, turns
