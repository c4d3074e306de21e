"""A batch row's body means what it means to OpenAI, or fails by name."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gx.core.ids import canonical
from gx.core.message import Answer, Sampling, TokenLogprob, Turn, Usage
from gx.run.batchrow import BatchRowError, messages, options
from gx.run.inputs import Row, open_inputs
from tests.desk import open_desk
from tests.fakes import ScriptedWorker


def sampling(body: dict[str, Any], own: Sampling | None = None) -> Sampling:
    return options({"body": body}, own or Sampling(), None)[0]


@pytest.mark.parametrize(
    "body, changed",
    [
        ({"logprobs": True}, {"logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 5}, {"logprobs": 5}),
        ({"logprobs": True, "top_logprobs": None}, {"logprobs": 0}),
        ({"logprobs": False, "top_logprobs": 0}, {}),
        ({"logprobs": None}, {}),
        ({"logit_bias": {"50256": -100, "7": 1.5}}, {"logit_bias": {"50256": -100.0, "7": 1.5}}),
        ({"logit_bias": {}}, {"logit_bias": {}}),
        ({"presence_penalty": 0.5, "frequency_penalty": -2}, {"presence_penalty": 0.5, "frequency_penalty": -2.0}),
        ({"presence_penalty": 0}, {"presence_penalty": 0.0}),
    ],
    ids=str,
)
def test_a_bodys_setting_is_the_samplings(body: dict[str, Any], changed: dict[str, Any]) -> None:
    assert sampling(body) == Sampling(**changed)


def test_what_a_body_leaves_out_is_the_agents() -> None:
    own = Sampling(logprobs=3, presence_penalty=1.0, logit_bias={"1": 1.0})
    assert sampling({}, own) == own
    assert sampling({"logprobs": False, "presence_penalty": 0, "logit_bias": {"2": 1}}, own) == Sampling(
        presence_penalty=0.0, logit_bias={"2": 1.0}
    )


@pytest.mark.parametrize(
    "body, told",
    [
        ({"tools": [{}]}, "body.tools is not supported"),
        ({"n": 2}, "body.n is not supported"),
        ({"logprobs": 5}, "body.logprobs: expected true or false, got 5"),
        ({"top_logprobs": 2}, "body.top_logprobs: expected `logprobs: true` beside it"),
        ({"logprobs": False, "top_logprobs": 2}, "body.top_logprobs: expected `logprobs: true` beside it"),
        ({"logprobs": True, "top_logprobs": 21}, "body.top_logprobs: expected a whole number from 0 to 20, got 21"),
        ({"logprobs": True, "top_logprobs": True}, "body.top_logprobs: expected a whole number from 0 to 20, got true"),
        ({"logprobs": True, "top_logprobs": "2"}, 'body.top_logprobs: expected a whole number from 0 to 20, got "2"'),
        ({"logit_bias": {"7": "x"}}, "body: Expected `float`, got `str` - at `$.logit_bias[...]`"),
        ({"logit_bias": [7]}, "body: Expected `object | null`, got `array` - at `$.logit_bias`"),
        ({"presence_penalty": "high"}, "body: Expected `float | null`, got `str` - at `$.presence_penalty`"),
        ({"stop": 7}, "body: Expected `array`, got `int` - at `$.stop`"),
        ({"stop": True}, "body: Expected `array`, got `bool` - at `$.stop`"),
        ({"seed": 10**20}, "body: expected whole numbers of at most 64 bits, got a longer one"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": [10**20]}}}},
            "body: expected whole numbers of at most 64 bits, got a longer one",
        ),
        ({"response_format": "json_object"}, "body: Expected `object | null`, got `str` - at `$.response_format`"),
        ({"response_format": {"type": "json"}}, "body: Invalid enum value 'json' - at `$.response_format.type`"),
        (
            {"response_format": {"type": "json_schema", "json_schema": "x"}},
            "body: Expected `object | null`, got `str` - at `$.response_format.json_schema`",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": True}}},
            "body: Expected `object | null`, got `bool` - at `$.response_format.json_schema.schema`",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_cant_be_honoured_is_refused_by_name(body: dict[str, Any], told: str) -> None:
    with pytest.raises(BatchRowError) as caught:
        sampling(body)
    assert str(caught.value) == told


def test_a_part_of_a_message_that_has_no_proper_type_is_refused_by_name() -> None:
    content = [{"type": "text", "text": "a"}, {"type": []}, 3]
    with pytest.raises(BatchRowError, match=r"messages\[0\]: expected text, got \[\], int"):
        messages({"messages": [{"role": "user", "content": content}]}, ())


SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    "asked, schema",
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}, SCHEMA),
    ],
    ids=str,
)
def test_a_response_format_is_the_schema_of_the_answer(asked: Any, schema: Any) -> None:
    assert options({"body": {"response_format": asked}}, Sampling(), None)[1] == schema


def test_a_choice_writes_no_tokens_to_tell_of() -> None:
    schema: dict[str, Any] = {"enum": ["a", "b"]}
    row = {"body": {"logprobs": True}}
    with pytest.raises(BatchRowError, match=r"body\.logprobs is not supported where the agent chooses"):
        options(row, Sampling(), schema, chooses=True)
    assert options({"body": {}}, Sampling(), schema, chooses=True)[1] is schema
    row["body"]["response_format"] = {"type": "json_object"}  # type: ignore[assignment]
    assert options(row, Sampling(), schema, chooses=True)[0].logprobs == 0


RECIPE = """
version: 1
name: test
models: {m: smollm2}
agents: {a: {model: m}}
steps: [{id: s, for_each: inputs, agent: a}]
"""


@pytest.mark.anyio
async def test_logprobs_stand_in_the_choice_of_the_answer(tmp_path: Path) -> None:
    def answer(turn: Turn) -> Answer:
        tokens = (TokenLogprob(token=4, piece=b"Hi", logprob=-0.5),) if turn.sampling.logprobs is not None else ()
        return Answer(value=msgspec.Raw(b'"Hi"'), usage=Usage(tokens_out=1), logprobs=tokens)

    bodies = [{"logprobs": True}, {}]
    messages = [{"role": "user", "content": "Hello"}]
    rows = (
        Row(
            index=index,
            id=f"c{index}",
            value=json.dumps({"messages": messages, "body": body | {"messages": messages}}).encode(),
            is_batch=True,
        )
        for index, body in enumerate(bodies)
    )
    async with open_desk(tmp_path, ScriptedWorker(answer)) as desk:
        records = await desk.finish(await desk.begin(RECIPE, rows))
    lines = {line["custom_id"]: line for line in (record.as_batch(model="m") for record in records)}
    told, plain = (lines[name]["response"]["body"]["choices"][0] for name in ("c0", "c1"))
    token = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    assert told["message"]["content"] == "Hi"
    assert told["logprobs"] == {"content": [token], "refusal": None}
    assert plain["logprobs"] is None


@pytest.mark.anyio
async def test_a_body_that_is_mistyped_fails_its_row_and_no_other(tmp_path: Path) -> None:
    lines = [
        {"custom_id": f"c{n}", "body": {"messages": [{"role": "user", "content": "Hello"}]} | body}
        for n, body in enumerate([{"response_format": "json_object"}, {"stop": 7}, {}])
    ]
    source = open_inputs("-", base_dir=tmp_path, stdin=io.BytesIO(b"\n".join(map(canonical, lines))))
    async with open_desk(tmp_path) as desk:
        records = await desk.finish(await desk.begin(RECIPE, source.rows()))
    ended = {record.task.row_id: record.task.error and record.task.error[0] for record in records}
    assert ended == {"c0": "row", "c1": "row", "c2": None}
