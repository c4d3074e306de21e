"""A choice is always one of the options, with the probability of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import jsonschema
import msgspec
import numpy as np
import pytest

from edge.baseline import baseline_of
from edge.engine.engine import Engine, Request, Weights
from edge.engine.front import Front
from edge.execute import execute
from edge.fields import Field, fields_of
from gx.core.message import Answer, Choice, Failure, Message, Outcome, Turn
from tests.tiny_model import write_tiny_model

TICKET: dict[str, Any] = {
    "type": "object",
    "properties": {"category": {"enum": ["billing", "bug", "how-to"]}, "urgent": {"enum": [True, False]}},
}


def run(engine: Engine, schema: dict[str, Any], choice: Choice = "scored", **fields: Any) -> Outcome:
    turn = Turn(
        run="r",
        task="t",
        attempt=1,
        model=fields.get("model", "tiny"),
        messages=(Message(role="user", content=fields.get("text", "I was charged twice for my plan!")),),
        output_schema=schema,
        choice=choice,
        baselines=fields.get("baselines", ()),
    )

    async def main() -> Outcome:
        return await execute(turn, lambda _: None, front=Front(engine))

    return anyio.run(main)


@pytest.mark.parametrize("choice", ["scored", "calibrated"])
def test_an_object_of_enums_is_chosen_field_by_field(engine: Engine, choice: Choice) -> None:
    outcome = run(engine, TICKET, choice)
    assert isinstance(outcome, Answer) and outcome.scores is not None
    value = msgspec.json.decode(outcome.value)
    jsonschema.validate(value, TICKET)
    assert list(value) == ["category", "urgent"]
    assert set(outcome.scores["category"]) == {"billing", "bug", "how-to"}
    assert set(outcome.scores["urgent"]) == {"true", "false"}
    assert all(sum(shares.values()) == pytest.approx(1, abs=1e-4) for shares in outcome.scores.values())
    categories = outcome.scores["category"]
    assert max(categories, key=categories.__getitem__) == value["category"]
    assert outcome.usage.tokens_in > 0 and outcome.usage.tokens_out > 0


def test_an_enum_is_a_bare_value(engine: Engine) -> None:
    outcome = run(engine, {"enum": ["Paris", "Rome", "Berlin"]}, model="smol", text="What is the capital of France?")
    assert isinstance(outcome, Answer) and outcome.scores is not None
    assert msgspec.json.decode(outcome.value) == "Paris"
    assert shares(outcome)[0] > 0.5


def test_a_schema_with_anything_else_cannot_be_chosen_from(engine: Engine) -> None:
    for schema in ({"type": "string"}, {"type": "object", "properties": {"a": {"type": "string"}}}, {"type": "object"}):
        outcome = run(engine, schema)
        assert isinstance(outcome, Failure) and (outcome.code, outcome.retryable) == ("choice", False)


def shares(outcome: Outcome) -> list[float]:
    assert isinstance(outcome, Answer) and outcome.scores is not None
    return list(outcome.scores[""].values())


def chats(*texts: str) -> tuple[tuple[Message, ...], ...]:
    return tuple((Message(role="user", content=text),) for text in texts)


def test_a_batch_takes_away_what_the_model_likes_in_every_row(engine: Engine) -> None:
    schema = {"enum": ["a fruit", "a tool"]}
    texts = ("What is a hammer?", "What is an apple?")
    plain = [run(engine, schema, model="smol", text=text) for text in texts]
    fair = [run(engine, schema, "calibrated", model="smol", text=text, baselines=chats(*texts)) for text in texts]
    logs = np.log([shares(one) for one in plain])
    left = logs - logs.mean(axis=0)
    expected = np.exp(left) / np.exp(left).sum(axis=1, keepdims=True)
    got = [shares(one) for one in fair]
    assert np.allclose(got, expected, atol=0.02)
    assert [msgspec.json.decode(one.value) for one in fair if isinstance(one, Answer)] == ["a tool", "a fruit"]


def test_chats_that_do_not_fit_are_left_out_of_the_batch(engine: Engine) -> None:
    texts = ("one", "word " * 3000, "two")
    outcome = run(engine, TICKET, "calibrated", baselines=chats(*texts))
    without = run(engine, TICKET, "calibrated", baselines=chats("one", "two"))
    assert isinstance(outcome, Answer) and isinstance(without, Answer) and outcome.scores == without.scores
    alone = run(engine, TICKET, "calibrated", baselines=chats("word " * 3000))
    assert isinstance(alone, Failure) and alone.code == "context"


def test_a_batch_is_computed_once_for_all_turns(engine: Engine) -> None:
    front, fields = Front(engine), fields_of(TICKET)
    found: list[Any] = []

    async def main() -> None:
        async def ask() -> None:
            found.append(await baseline_of("tiny", chats("one", "two", "three"), fields, front))

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(ask)

    before = engine.statistics()
    anyio.run(main)
    assert all(one is found[0] for one in found) and len(found[0]) == 2
    assert engine.statistics() != before


def test_options_are_weighed_without_what_closes_them_unless_one_begins_another() -> None:
    category, urgent = fields_of(TICKET)
    assert category == Field(
        "category", '{"category": ', ("billing", "bug", "how-to"), ('"billing', '"bug', '"how-to'),
        ('"billing", ', '"bug", ', '"how-to", '),
    )  # fmt: skip
    assert (urgent.weighed, urgent.written) == (("true", "false"), ("true}", "false}"))
    (number,) = fields_of({"type": "object", "properties": {"n": {"enum": [1, 10]}}})
    assert number.weighed == ("1}", "10}")
    first, _ = fields_of({"type": "object", "properties": {"a": {"enum": ["x", "xy"]}, "b": {"enum": [1]}}})
    assert first.weighed == ('"x",', '"xy",')
    assert fields_of({"enum": ["x", "xy"]})[0].are_whole and not fields_of({"enum": ["x", "y"]})[0].are_whole


def test_a_prompt_is_computed_once_for_all_its_fields_though_others_wait_for_slots(tmp_path: Path) -> None:
    """Who waits would take the slot between two fields: it is kept, also where it is the only one."""
    engine = Engine(threads=1, slots=2)
    engine.register("tiny", str(write_tiny_model(tmp_path / "tiny.gguf")))
    front = Front(engine)
    fields: dict[str, Any] = {name: {"enum": ["yes", "no", "perhaps"]} for name in "abcd"}
    outcomes: list[Outcome] = []

    async def one(number: int) -> None:
        text = f"{number} " * 60
        turn = Turn(
            run="r",
            task=f"t{number}",
            attempt=1,
            model="tiny",
            messages=(Message(role="user", content=text),),
            output_schema={"type": "object", "properties": fields},
            choice="scored",
        )
        outcomes.append(await execute(turn, lambda _: None, front=front))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(one, number)

    anyio.run(main)
    engine.close()
    for outcome in outcomes:
        assert isinstance(outcome, Answer)
        assert outcome.usage.tokens_cached > 0.7 * outcome.usage.tokens_in, outcome.usage


def test_a_slot_is_not_kept_for_one_who_does_not_come(tmp_path: Path) -> None:
    engine = Engine(threads=1, slots=1)
    engine.register("tiny", str(write_tiny_model(tmp_path / "tiny.gguf")))
    message = (Message(role="user", content="Yes or no?"),)
    options = ("yes", "no")
    first = Request(model="tiny", messages=message, options=options, conversation="c", goes_on=True)
    assert isinstance(engine.submit(first).result(10), Weights)
    other = Request(model="tiny", messages=message, options=options)
    assert isinstance(engine.submit(other).result(10), Weights)
    engine.close()
