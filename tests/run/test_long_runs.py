"""Prompts that are longer than the context, in runs: what goes in always fits, and nothing is left out untold."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio.lowlevel
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gx.core import event as e
from gx.core.errors import BenchError, RecipeError
from gx.core.message import Answer, Failure, Label, Message, Outcome, Turn, Usage
from gx.flow.parse import fingerprint_source, parse_recipe
from gx.node.standing import end_of, progress_of
from gx.run.egress import PrivateTurn
from gx.run.history.telling import told
from gx.run.long.fitting import LEAST_ANSWER_TOKENS
from gx.run.long.nearest import MOST_EMBEDDED, NOT_ALL
from gx.run.long.telling import words_of
from tests.desk import Desk, open_desk
from tests.fakes import ScriptedMemory, ScriptedWorker

pytestmark = pytest.mark.anyio

RECIPE = """
version: 1
name: long
models: {m: x}
agents: {a: {model: m, sampling: {max_tokens: %d}%s}}
steps:
  - id: s
    for_each: inputs
    agent: a
    prompt: "About: {{ item.text }} Question: {{ item.q }}"
    %s
"""
FILLER = "Nothing of note happens in this sentence. "


def recipe(more: str = "", *, max_tokens: int = 100, agent: str = "") -> str:
    return RECIPE % (max_tokens, agent, more)


def document(fact: str, at: int = 30, of: int = 60) -> str:
    """Paragraphs of nothing, but for one that has the fact."""
    return "\n\n".join(fact if n == at else FILLER * 8 for n in range(of))


def new(folder: Path, name: object) -> Path:
    """A folder of that name in `folder`."""
    made = folder / str(name)
    made.mkdir()
    return made


def tokens(messages: Sequence[Message]) -> int:
    """As the scripted worker counts them."""
    return sum(len(m.content) for m in messages) // 4


LONG = document("The password of the vault is heliotrope.")
ROW = {"text": LONG, "q": "What is the password of the vault?"}


async def test_a_prompt_that_is_too_long_gets_the_parts_that_are_nearest_to_its_question(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        _, (record,) = await desk.run(recipe(), [ROW])
        (prepared,) = desk.bodies(e.TaskPrepared)
        (turn,) = desk.worker.submitted
    assert "heliotrope" in record["output"] and record["output"].endswith("Question: " + ROW["q"])
    assert "parts left out …]" in record["output"] and tokens(turn.messages) <= 2048 - 100
    short = prepared.shortened
    assert (short.tokens, short.tokens_kept) == (tokens_of(LONG, ROW["q"]), tokens(turn.messages))
    (kept,) = short.texts
    assert kept.field == ("item", "text") and 0 < kept.of - sum(kept.left_out) < kept.of
    assert prepared.key == turn.key()


def tokens_of(text: str, q: str) -> int:
    return len(f"About: {text} Question: {q}") // 4


async def test_a_prompt_that_fits_goes_in_whole_and_has_the_key_it_always_had(tmp_path: Path) -> None:
    row = {"text": FILLER * 100, "q": "why?"}  # more than is sure to fit, and yet it does
    keys = []
    for number, more in enumerate(("", "long: refuse")):
        async with open_desk(new(tmp_path, number)) as desk:
            await desk.run(recipe(more), [row])
            (prepared,) = desk.bodies(e.TaskPrepared)
            keys.append((prepared.key, prepared.shortened))
    assert keys[0] == keys[1] and keys[0][1] is None


async def test_a_prompt_that_is_sure_to_fit_waits_for_no_bench(tmp_path: Path) -> None:
    class Down(ScriptedWorker):
        async def count(self, model: str, chats: Sequence[tuple[Message, ...]]) -> list[int]:
            raise AssertionError("nothing is to be counted")

    async with open_desk(tmp_path, Down()) as desk:
        _, records = await desk.run(recipe(), [{"text": FILLER, "q": "why?"}])
    assert records[0]["status"] == "succeeded"


async def test_the_same_texts_give_the_same_key_and_an_answer_that_is_in_the_log(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        await desk.run(recipe(), [ROW], run="one")
    async with open_desk(tmp_path) as desk:
        state, (record,) = await desk.run(recipe(), [ROW], run="two")
        prepared = [body for body in desk.bodies(e.TaskPrepared) if body.run == "two"]
        assert desk.worker.submitted == []
    assert record["cached"] and prepared[0].shortened is not None
    assert state.step("s").left_out is not None


async def test_a_run_that_goes_on_after_a_kill_has_the_same_key_and_looks_at_no_prompt_again(tmp_path: Path) -> None:
    stuck = ScriptedWorker(lambda turn: None)
    async with open_desk(tmp_path, stuck) as desk:
        await desk.begin(recipe(), [ROW])
        while not stuck.submitted:
            await anyio.lowlevel.checkpoint()
        (before,) = desk.bodies(e.TaskPrepared)

    class Uncounted(ScriptedWorker):
        async def count(self, model: str, chats: Sequence[tuple[Message, ...]]) -> list[int]:
            raise AssertionError("it was looked at")

    async with open_desk(tmp_path, Uncounted()) as desk:
        active = await desk.begin(recipe(), [ROW])
        await desk.finish(active)
        assert desk.bodies(e.TaskPrepared) == [before]
        (turn,) = desk.worker.submitted
        assert turn.key() == before.key and turn.messages == stuck.submitted[0].messages


async def test_a_task_that_was_routed_to_another_model_is_looked_at_again(tmp_path: Path) -> None:
    class TwoModels(ScriptedWorker):
        async def describe(self, model: str) -> Any:
            self.context = 1024 if model == "sha-other" else 2048
            return await super().describe(model)

    text = recipe().replace("models: {m: x}", "models: {m: x, other: y}")
    stuck = TwoModels(lambda turn: None, leases=1)
    async with open_desk(tmp_path, stuck) as desk:
        active = await desk.begin(text, [ROW, ROW | {"q": "Which vault?"}])
        while not stuck.submitted or sum(task.shortened is not None for task in active.state.tasks.values()) < 2:
            await anyio.lowlevel.checkpoint()
        desk.dispatcher.steer([e.StepRouted(run="r", step="s", model="other")])

        def models() -> set[str]:
            return {task.shortened.model for task in active.state.tasks.values() if task.shortened is not None}

        while models() != {"sha-m", "sha-other"}:  # the first of them runs, and ends as it is
            await anyio.lowlevel.checkpoint()
        again = desk.bodies(e.TaskPrepared)[-1].shortened
        assert again.model == "sha-other" and again.tokens_kept <= 1024 - 100


async def test_refuse_leaves_the_prompt_to_the_bench_which_says_how_long_it_is(tmp_path: Path) -> None:
    for number, more in enumerate(("long: refuse", "long: {how: refuse}")):
        async with open_desk(new(tmp_path, number)) as desk:
            _, (record,) = await desk.run(recipe(more), [ROW])
            assert LONG in record["output"] and desk.bodies(e.TaskPrepared)[0].shortened is None


async def test_a_prompt_that_can_not_be_made_to_fit_is_left_to_the_bench(tmp_path: Path) -> None:
    text = recipe().replace("Question:", "x " * 5000)
    async with open_desk(tmp_path) as desk:
        _, (record,) = await desk.run(text, [ROW])
        assert LONG in record["output"] and desk.bodies(e.TaskPrepared)[0].shortened is None


async def test_only_the_field_that_is_named_is_cut(tmp_path: Path) -> None:
    prompt = recipe("long: {field: text}").replace("Question: ", "Question: {{ item.other }} ")
    async with open_desk(tmp_path) as desk:
        _, (record,) = await desk.run(prompt, [ROW | {"other": FILLER * 100}])
        (kept,) = desk.bodies(e.TaskPrepared)[0].shortened.texts
    assert kept.field == ("item", "text") and FILLER * 100 in record["output"]


async def test_several_texts_are_cut_where_one_is_not_enough(tmp_path: Path) -> None:
    prompt = recipe().replace("Question: ", "And: {{ item.other }} Question: ")
    other = document("The vault stands in Lucerne.", at=3)
    async with open_desk(tmp_path) as desk:
        _, (record,) = await desk.run(prompt, [ROW | {"other": other, "q": "password of the vault? where, Lucerne?"}])
        texts = desk.bodies(e.TaskPrepared)[0].shortened.texts
    assert {kept.field for kept in texts} == {("item", "text"), ("item", "other")}
    assert "heliotrope" in record["output"] and "Lucerne." in record["output"]


async def test_what_is_written_as_json_is_cut_too(tmp_path: Path) -> None:
    prompt = recipe().replace("{{ item.text }}", "{{ item }}")
    async with open_desk(tmp_path) as desk:
        _, (record,) = await desk.run(prompt, [ROW])
    assert "heliotrope" in record["output"] and len(record["output"]) // 4 <= 2048 - 100


class Meaning(ScriptedMemory):
    """A memory that finds one word the nearest to any question."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    async def near(self, question: str, passages: Sequence[str]) -> tuple[list[float] | None, tuple[str, ...]]:
        return ([float(self.word in text) for text in passages], ()) if self.word else (None, ("by words only",))


async def test_parts_are_found_by_meaning_where_vectors_are_there_and_else_that_is_told(tmp_path: Path) -> None:
    row = {"text": document("A feline sat."), "q": "Where is my pet?"}
    async with open_desk(new(tmp_path, "a"), memory=Meaning("feline")) as desk:
        _, (record,) = await desk.run(recipe(), [row])
        assert "feline" in record["output"] and desk.bodies(e.TaskPrepared)[0].shortened.without == ()
    async with open_desk(new(tmp_path, "b"), memory=Meaning("")) as desk:
        await desk.run(recipe(), [row])
        assert desk.bodies(e.TaskPrepared)[0].shortened.without == ("by words only",)


async def test_what_takes_a_while_is_told_before_it_does_and_what_it_did_not_compare(tmp_path: Path) -> None:
    class Listening(Meaning):
        told: tuple[str, ...] = ()
        n_compared = 0

        async def near(self, question: str, passages: Sequence[str]) -> tuple[list[float] | None, tuple[str, ...]]:
            self.told, self.n_compared = tuple(active.preparer.looks.notes), len(passages)
            return await super().near(question, passages)

    memory = Listening("feline")
    row = {"text": document("A feline sat on my pet.", of=600), "q": "Where is my pet?"}
    async with open_desk(tmp_path, memory=memory) as desk:
        active = await desk.begin(recipe(), [row])
        (record,) = await desk.finish(active)
        (prepared,) = desk.bodies(e.TaskPrepared)
    assert "feline" in record.as_dict()["output"] and memory.n_compared == MOST_EMBEDDED
    assert len(memory.told) == 1 and "takes a while" in memory.told[0]
    assert prepared.shortened.texts[0].of > MOST_EMBEDDED
    assert prepared.shortened.without == (NOT_ALL,) and NOT_ALL in words_of(prepared.shortened)


async def test_parts_of_a_private_text_are_private_and_those_of_another_are_not(tmp_path: Path) -> None:
    labels = {}
    for name in ("text", "mail"):
        async with open_desk(new(tmp_path, name)) as desk:
            active = await desk.begin(f"private: [{name}]\n" + recipe(), [ROW | {"mail": "a@b"}])
            await desk.finish(active)
            (prepared,), (turn,) = desk.bodies(e.TaskPrepared), desk.worker.submitted
            labels[name] = (prepared.label, isinstance(turn, PrivateTurn), prepared.shortened is not None)
    assert labels == {"text": (Label.private, True, True), "mail": (Label.shared, False, True)}


async def test_a_bench_that_is_lost_while_it_counts_costs_no_task(tmp_path: Path) -> None:
    class Flaky(ScriptedWorker):
        losses = 2

        async def count(self, model: str, chats: Sequence[tuple[Message, ...]]) -> list[int]:
            self.losses -= 1
            if self.losses >= 0:
                raise BenchError("it died")
            return await super().count(model, chats)

    async with open_desk(tmp_path, Flaky()) as desk:
        _, (record,) = await desk.run(recipe(), [ROW])
    assert "heliotrope" in record["output"]


# ── notes ────────────────────────────────────────────────────────────────────────────────────────────────────────

REDUCE = recipe("long: reduce", agent=", output: {type: object, properties: {a: {type: string}}}")


def note_or_answer(turn: Turn) -> Answer:
    """Notes that name what a part says of the vault; an answer that is the whole prompt."""
    text = turn.messages[-1].content
    if not text.endswith("Notes:"):
        return Answer(value=msgspec.Raw(msgspec.json.encode({"a": text})), usage=Usage(tokens_in=7, tokens_out=3))
    note = "It is heliotrope." if "heliotrope" in text else "Nothing."
    return Answer(value=msgspec.Raw(msgspec.json.encode(note)), usage=Usage(tokens_in=7, tokens_out=3))


async def test_each_part_of_a_long_text_is_condensed_by_a_task_of_its_own(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker(note_or_answer)) as desk:
        state, (record,) = await desk.run(REDUCE, [ROW])
        queued = {body.task: body for body in desk.bodies(e.TaskQueued)}
        turns = desk.worker.submitted
    parts = [turn for turn in turns if queued[turn.task].part_of is not None]
    assert len({body.input for body in queued.values()}) == 1  # so that whoever erases the row erases its parts
    assert len(parts) > 2 and {queued[turn.task].step for turn in parts} == {"s/parts"}
    assert all(tokens(turn.messages) + turn.sampling.max_tokens <= 2048 for turn in parts)
    assert all(turn.output_schema is None for turn in parts) and turns[-1].output_schema is not None
    answer = record["output"]["a"]
    assert answer.count("It is heliotrope.") == 1 and answer.endswith("Question: " + ROW["q"])
    assert answer.count("Nothing.") == len(parts) - 1 and "left out" not in answer
    assert (state.tokens_in, state.tokens_out) == (7 * len(turns), 3 * len(turns))
    given = "".join(text_of(turn) for turn in sorted(parts, key=lambda turn: int(queued[turn.task].path.split(".")[1])))
    assert given == LONG


def text_of(turn: Turn) -> str:
    """The part of a text that a turn has."""
    return turn.messages[-1].content.split(":\n", 1)[1].rsplit("\n\nRequest:", 1)[0]


async def test_notes_that_are_too_long_are_condensed_again(tmp_path: Path) -> None:
    def verbose(turn: Turn) -> Answer:
        if turn.messages[-1].content.endswith("Notes:"):
            value = "word " * (turn.sampling.max_tokens * 4 // 5)
            return Answer(value=msgspec.Raw(msgspec.json.encode(value)))
        return note_or_answer(turn)

    row = ROW | {"text": LONG * 4}
    async with open_desk(tmp_path, ScriptedWorker(verbose, context=1024)) as desk:
        _, (record,) = await desk.run(REDUCE, [row])
        levels = [body.level for body in desk.bodies(e.TaskQueued) if body.part_of is not None]
        assert all(tokens(turn.messages) <= 1024 - 16 for turn in desk.worker.submitted)
    assert record["status"] == "succeeded" and max(levels) >= 1
    assert levels.count(0) > 3 * levels.count(1) > 0


async def test_a_run_that_is_killed_while_it_condenses_loses_only_what_was_under_way(tmp_path: Path) -> None:
    seen = list[str]()

    def two(turn: Turn) -> Answer | None:
        seen.append(turn.task)
        return note_or_answer(turn) if len(seen) <= 2 else None

    async with open_desk(tmp_path, ScriptedWorker(two, leases=1)) as desk:
        await desk.begin(REDUCE, [ROW])
        while len(seen) < 3:
            await anyio.lowlevel.checkpoint()
        before = {body.task for body in desk.bodies(e.TaskQueued)}
    async with open_desk(tmp_path, ScriptedWorker(note_or_answer)) as desk:
        (record,) = await desk.finish(await desk.begin(REDUCE, [ROW]))
        assert {body.task for body in desk.bodies(e.TaskQueued)} == before
        assert not {turn.task for turn in desk.worker.submitted} & set(seen[:2])
        done = [body.task for body in desk.bodies(e.TaskSucceeded)]
    assert "It is heliotrope." in record.as_dict()["output"]["a"] and len(done) == len(set(done)) == len(before)


async def test_notes_that_are_in_the_log_are_not_taken_again(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker(note_or_answer)) as desk:
        await desk.run(REDUCE, [ROW], run="one")
    async with open_desk(tmp_path, ScriptedWorker(note_or_answer)) as desk:
        _, (record,) = await desk.run(REDUCE, [ROW], run="two")
        assert desk.worker.submitted == [] and record["cached"]


async def test_many_prompts_that_wait_for_their_parts_leave_room_to_these(tmp_path: Path) -> None:
    rows = [ROW | {"text": document("The password is heliotrope.", at=n % 30, of=31)} for n in range(90)]
    async with open_desk(tmp_path, ScriptedWorker(note_or_answer)) as desk:
        _, records = await desk.run(REDUCE, rows)
    assert len(records) == 90 and all(record["output"]["a"].count("heliotrope") == 1 for record in records)


async def test_a_part_that_fails_fails_its_task_and_says_which_it_was(tmp_path: Path) -> None:
    def failing(turn: Turn) -> Outcome:
        if "heliotrope" in turn.messages[-1].content:
            return Failure(code="engine", message="it broke", retryable=False)
        return note_or_answer(turn)

    async with open_desk(tmp_path, ScriptedWorker(failing)) as desk:
        _, (record,) = await desk.run(REDUCE, [ROW])
    assert record["error"]["code"] == "engine" and "has no notes: it broke" in record["error"]["message"]


async def test_parts_of_a_private_text_and_their_notes_are_private(tmp_path: Path) -> None:
    for name, label in (("text", Label.private), ("mail", Label.shared)):
        async with open_desk(new(tmp_path, name), ScriptedWorker(note_or_answer)) as desk:
            active = await desk.begin(f"private: [{name}]\n" + REDUCE, [ROW | {"mail": "a@b"}])
            await desk.finish(active)
            assert {body.label for body in desk.bodies(e.TaskPrepared)} == {label}
            assert {isinstance(turn, PrivateTurn) for turn in desk.worker.submitted} == {label is Label.private}


# ── what always holds ────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 12_000), min_size=1, max_size=4),
    context=st.integers(200, 1500),
    max_tokens=st.integers(1, 1500),
)
async def test_what_is_sent_fits_beside_its_answer_or_is_whole_and_nothing_is_left_out_untold(
    sizes: list[int], context: int, max_tokens: int
) -> None:
    rows = [{"text": (f"Row {n}. " + FILLER * 300)[:size], "q": "Why?"} for n, size in enumerate(sizes)]
    with tempfile.TemporaryDirectory() as folder:
        async with open_desk(Path(folder), ScriptedWorker(context=context)) as desk:
            text = recipe(max_tokens=max_tokens).replace("{m: x}", f"{{m: {{source: x, context: {context}}}}}")
            state, _ = await desk.run(text, rows)
            await _check(desk, rows, context, max_tokens)
            left = state.step("s").left_out
            n_short = sum(body.shortened is not None for body in desk.bodies(e.TaskPrepared))
            assert (0 if left is None else left.prompts) == n_short


async def _check(desk: Desk, rows: list[dict[str, str]], context: int, max_tokens: int) -> None:
    prepared = {body.task: body for body in desk.bodies(e.TaskPrepared)}
    index = {body.task: body.index for body in desk.bodies(e.TaskQueued)}
    for turn in desk.worker.submitted:
        row, short = rows[index[turn.task]], prepared[turn.task].shortened
        whole = f"About: {row['text']} Question: {row['q']}"
        if short is None:
            assert turn.messages[-1].content == whole
            is_small = tokens(turn.messages) <= context - LEAST_ANSWER_TOKENS
            assert is_small or context - min(max_tokens, context // 2) < 150, (context, max_tokens)
        else:
            assert tokens(turn.messages) == short.tokens_kept
            assert short.tokens_kept <= context - min(max_tokens, context // 2)
            assert "left out …]" in turn.messages[-1].content


# ── how it is told ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_it_is_told_once_a_step_and_summed_up_at_the_end(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        active = await desk.begin(recipe(), [ROW, {"text": "short", "q": "?"}, ROW | {"q": "What vault?"}])
        await desk.finish(active)
        events = [event for event in desk.log.read() if isinstance(event.body, e.TaskPrepared)]
    (note,) = progress_of(active.state, active.plan, elapsed_s=0.0).notes
    assert note.startswith("step s: prompts longer than the context of 2,048 tokens get the parts of their texts that")
    (warning,) = end_of(active.state, active.plan, seconds=0.0).warnings
    assert warning.startswith("step s: 2 prompts were longer than the context: ") and "parts of their texts" in warning
    sentence = next(told(ev.body, ev.ts, {}) for ev in events if ev.body.shortened)  # type: ignore[union-attr]
    assert "parts of item.text went in (" in sentence


# ── the recipe ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_default_written_out_is_the_same_recipe() -> None:
    bare = fingerprint_source(parse_recipe(recipe()))
    assert fingerprint_source(parse_recipe(recipe("long: retrieve"))) == bare
    assert fingerprint_source(parse_recipe(recipe("long: {how: retrieve, dialogue: drop}"))) == bare
    assert fingerprint_source(parse_recipe(recipe("long: refuse"))) != bare


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("long: cut", "retrieve"),
        ("long: {how: drop}", "retrieve, reduce or refuse"),
        ("long: {feild: text}", "field"),
    ],
)
def test_a_recipe_that_says_something_else_is_told_what_may_be_said(more: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe(more))
    assert message in f"{caught.value.message} {caught.value.hint}"


async def test_notes_are_told_of_as_soon_as_they_are_taken_and_summed_up_at_the_end(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker(note_or_answer)) as desk:
        active = await desk.begin(REDUCE, [ROW])
        await desk.finish(active)
        (short,) = [body.shortened for body in desk.bodies(e.TaskPrepared) if body.shortened is not None]
    assert progress_of(active.state, active.plan, elapsed_s=0.0).notes == (
        "step s: prompts longer than the context are condensed, each part of their texts by a task",
    )
    (warning,) = end_of(active.state, active.plan, seconds=0.0).warnings
    assert "1 prompt was longer than the context: notes on the" in warning
    assert words_of(short).startswith("longer than the context: notes on the ") and "parts of item.text" in words_of(
        short
    )
