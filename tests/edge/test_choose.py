"""A choice is always one of the options, with the probability of each."""

from __future__ import annotations

from typing import Any

import anyio
import jsonschema
import msgspec
import pytest

from edge.engine.engine import Engine
from edge.engine.front import Front
from edge.execute import execute
from gx.core.message import Answer, Choice, Failure, Message, Outcome, Turn

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
    assert max(outcome.scores["category"], key=lambda name: outcome.scores["category"][name]) == value["category"]
    assert outcome.usage.tokens_in > 0 and outcome.usage.tokens_out > 0


def test_an_enum_is_a_bare_value(engine: Engine) -> None:
    outcome = run(engine, {"enum": ["Paris", "Rome", "Berlin"]}, model="smol", text="What is the capital of France?")
    assert isinstance(outcome, Answer) and outcome.scores is not None
    assert msgspec.json.decode(outcome.value) == "Paris"
    assert outcome.scores[""]["Paris"] > 0.5


def test_a_schema_with_anything_else_cannot_be_chosen_from(engine: Engine) -> None:
    for schema in ({"type": "string"}, {"type": "object", "properties": {"a": {"type": "string"}}}, {"type": "object"}):
        outcome = run(engine, schema)
        assert isinstance(outcome, Failure) and (outcome.code, outcome.retryable) == ("choice", False)
