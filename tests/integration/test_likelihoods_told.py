"""What a real model found likely, from the recipe or a batch row to stdout, the log, and the eraser."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.integration.project import RECIPE, Project

TELLS = RECIPE.replace("temperature: 1, max_tokens: 6", "max_tokens: 6, logprobs: 2")
CHOOSES = RECIPE.replace(
    "sampling: {temperature: 1, max_tokens: 6}",
    "choose: scored, output: {type: object, required: [k, u], properties: {k: {enum: [x, y]}, u: {enum: [a, b, c]}}}",
)
BATCH = RECIPE.replace(', prompt: "{{ item.text }}"', "").replace("temperature: 1, ", "")


@pytest.fixture
def folder(folder: Project, tiny: Path) -> Project:
    return folder.write(TELLS, tiny, rows=1)


def test_a_record_tells_of_each_token_and_an_erased_one_of_none(folder: Project) -> None:
    (record,) = folder.run().records
    tokens = record["logprobs"]
    assert len(tokens) == record["usage"]["tokens_out"] and {len(token["top"]) for token in tokens} == {2}
    assert "".join(token["token"] for token in tokens).strip() == record["output"]
    for token in tokens:
        first, second = (other["logprob"] for other in token["top"])
        assert token["logprob"] == first >= second and first < 0  # greedy: the likeliest is what came
    (again,) = folder.run("run", "recipe.yaml", "-i", "rows.jsonl", "--name", "again").records
    assert (again["cached"], again["logprobs"]) == (True, tokens)

    ((task, told),) = folder.ask("SELECT task, likelihoods FROM tasks WHERE cached IS NULL")
    (shown,) = folder.run("show", task, "--json").records
    assert shown["logprobs"] == tokens
    assert folder.run("erase", task, "--yes").status == 0
    assert folder.ask(f"SELECT count(*) FROM blobs WHERE digest = '{told}'") == [(0,)]
    (shown,) = folder.run("show", task, "--json").records
    assert told in shown["erased"] and "logprobs" not in shown


def test_a_record_tells_the_share_of_each_option(folder: Project) -> None:
    (folder.folder / "recipe.yaml").write_text(CHOOSES)
    (record,) = folder.run().records
    assert {field: set(shares) for field, shares in record["scores"].items()} == {"k": {*"xy"}, "u": {*"abc"}}
    for field, shares in record["scores"].items():
        assert math.isclose(sum(shares.values()), 1, abs_tol=1e-4)
        assert record["output"][field] == max(shares, key=lambda option: shares[option])


def test_a_batch_row_gets_its_logprobs_and_its_bias(folder: Project) -> None:
    (folder.folder / "recipe.yaml").write_text(BATCH)

    def ask(**body: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": "Hello"}]
        line = {"custom_id": "c", "body": {"messages": messages, "max_tokens": 2} | body}
        (answer,) = folder.run("run", "recipe.yaml", "-i", "-", stdin=json.dumps(line).encode()).records
        return answer["error"] or answer["response"]["body"]["choices"][0]  # type: ignore[no-any-return]

    told = ask(logprobs=True, top_logprobs=3, presence_penalty=0.5, frequency_penalty=0.5)["logprobs"]
    assert [set(token) for token in told["content"]] == [{"token", "logprob", "bytes", "top_logprobs"}] * 2
    assert {len(token["top_logprobs"]) for token in told["content"]} == {3}
    biased = ask(logprobs=True, logit_bias={"400": 100})["logprobs"]["content"]
    assert biased[0]["token"] == biased[1]["token"] and biased[0]["logprob"] < told["content"][0]["logprob"]
    assert ask()["logprobs"] is None
    assert ask(logit_bias={"9000000": 1})["code"] == "sampling"
