"""What the bench tells beside an answer reaches the record, outlives the process, and goes when it is erased."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec
import pytest

from gx.core import event as e
from gx.core.message import Alternative, Answer, Scores, TokenLogprob, Turn, Usage
from gx.run import likelihoods
from gx.run.log import EventLog
from gx.run.log.erase import erase
from gx.run.log.query import run_sql
from gx.run.log.verify import verify
from tests.desk import open_desk
from tests.fakes import ScriptedWorker, echo

pytestmark = pytest.mark.anyio

RECIPE = """
version: 1
name: test
models: {m: smollm2}
agents:
  a: {model: m, sampling: {logprobs: 1}}
  c: {model: m, choose: scored, output: {type: object, required: [k], properties: {k: {enum: [x, y]}}}}
steps: [{id: s, for_each: inputs, agent: AGENT, prompt: "{{ item.text }}"}]
"""
TELLS, CHOOSES = RECIPE.replace("AGENT", "a"), RECIPE.replace("AGENT", "c")
ROWS = [{"id": "T0", "text": "hello"}]
TOKENS = (
    TokenLogprob(
        token=5, piece=b"hel", logprob=-0.25000000001, top=(Alternative(token=7, piece=b"\xc3", logprob=-math.inf),)
    ),
    TokenLogprob(token=6, piece=b"lo"),
)
HALF = {"token": "\ufffd", "id": 7, "logprob": -9999.0, "bytes": [195]}
SHOWN = [
    {"token": "hel", "id": 5, "logprob": -0.25, "top": [HALF]},
    {"token": "lo", "id": 6, "logprob": None, "top": []},
]
SCORES: Scores = {"k": {"x": 0.75, "y": 0.25}}


def tells(turn: Turn) -> Answer:
    value = msgspec.Raw(msgspec.json.encode(turn.messages[-1].content))
    return Answer(value=value, usage=Usage(tokens_in=10, tokens_out=2), logprobs=TOKENS)


def chooses(turn: Turn) -> Answer:
    return Answer(value=msgspec.Raw(b'{"k": "x"}'), usage=Usage(tokens_in=10), scores=SCORES)


async def test_logprobs_stand_in_the_record_and_not_in_the_event(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker(tells)) as desk:
        _, (record,) = await desk.run(TELLS, ROWS)
        (succeeded,) = desk.bodies(e.TaskSucceeded)
    assert record["output"] == "hello" and record["logprobs"] == SHOWN
    assert b"hel" not in e.encode_body(succeeded) and succeeded.likelihoods is not None


async def test_the_scores_of_a_choice_stand_in_the_record_and_not_in_the_event(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker(chooses)) as desk:
        _, (record,) = await desk.run(CHOOSES, ROWS)
        (succeeded,) = desk.bodies(e.TaskSucceeded)
    assert (record["scores"], "logprobs" in record) == (SCORES, False)
    assert b"0.75" not in e.encode_body(succeeded)


async def test_a_record_without_them_says_nothing_of_them(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        _, (record,) = await desk.run(TELLS.replace("sampling: {logprobs: 1}", "persona: p"), ROWS)
        (succeeded,) = desk.bodies(e.TaskSucceeded)
    assert not {"scores", "logprobs"} & set(record) and b"likelihoods" not in e.encode_body(succeeded)


async def test_equal_tasks_share_them_in_a_run_and_across_runs(tmp_path: Path) -> None:
    worker = ScriptedWorker(tells)
    async with open_desk(tmp_path, worker) as desk:
        _, records = await desk.run(TELLS, [*ROWS, {"id": "T1", "text": "hello"}])
        _, later = await desk.run(TELLS, ROWS, run="again")
    assert [record["logprobs"] for record in [*records, *later]] == [SHOWN] * 3
    assert [record["cached"] for record in later] == [True] and len(worker.submitted) == 1


async def test_a_resumed_run_prints_them_again(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker(tells)) as desk:
        await desk.run(TELLS, ROWS)
    async with open_desk(tmp_path, ScriptedWorker(lambda turn: None)) as desk:
        _, (record,) = await desk.run(TELLS, ROWS)
    assert record["logprobs"] == SHOWN


async def test_a_result_that_lacks_what_is_asked_for_is_computed_again(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker(echo)) as desk:  # as logs were before there was such a field
        await desk.run(TELLS, ROWS)
    async with open_desk(tmp_path, ScriptedWorker(tells)) as desk:
        _, (record,) = await desk.run(TELLS, ROWS, run="again")
    assert (record["cached"], record["logprobs"]) == (False, SHOWN)


@pytest.mark.parametrize("recipe, answer", [(TELLS, tells), (CHOOSES, chooses)], ids=["logprobs", "scores"])
async def test_erasing_a_task_takes_them_too(tmp_path: Path, recipe: str, answer: object) -> None:
    async with open_desk(tmp_path, ScriptedWorker(answer)) as desk:  # type: ignore[arg-type]
        state, _ = await desk.run(recipe, ROWS)
        (succeeded,) = desk.bodies(e.TaskSucceeded)
    refs = {succeeded.output, succeeded.likelihoods}
    with EventLog.open(tmp_path, read_only=True) as log:
        assert set(log.blobs(refs)) == refs
        assert run_sql(log, "SELECT likelihoods FROM tasks").rows == [(succeeded.likelihoods,)]
    erase(EventLog.open(tmp_path), next(iter(state.tasks)))
    with EventLog.open(tmp_path, read_only=True) as log:
        assert log.blobs(refs) == {} and verify(log).is_whole
        assert log.find_results([succeeded.key], before_seq=log.last_seq) == {}
    async with open_desk(tmp_path, ScriptedWorker(lambda turn: None)) as desk:
        _, (record,) = await desk.run(recipe, ROWS)
    assert record["error"]["code"] == "erased" and not {"scores", "logprobs"} & set(record)


async def test_a_result_whose_likelihoods_alone_were_erased_is_not_found(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ScriptedWorker(chooses)) as desk:
        state, _ = await desk.run(CHOOSES, ROWS)
        (succeeded,) = desk.bodies(e.TaskSucceeded)
        other = msgspec.structs.replace(succeeded, run="o", task="o", key="another", likelihoods=None)
        await desk.dispatcher.commit([other])  # needs the same answer
    erase(EventLog.open(tmp_path), next(iter(state.tasks)))
    with EventLog.open(tmp_path, read_only=True) as log:
        assert set(log.blobs([succeeded.output, succeeded.likelihoods])) == {succeeded.output}
        assert log.find_results([succeeded.key], before_seq=log.last_seq) == {}


async def test_what_a_stale_attempt_says_is_not_kept(tmp_path: Path) -> None:
    worker = ScriptedWorker(lambda turn: None)
    async with open_desk(tmp_path, worker) as desk:
        active = await desk.begin(TELLS, ROWS)
        await until(lambda: worker.running)
        (turn,) = worker.running.values()
        worker.die()
        await until(lambda: turn.task in worker.running)
        worker.running[turn.task], fresh = turn, worker.running[turn.task]
        worker.end(turn.task, Answer(value=msgspec.Raw(b'"stale"'), logprobs=TOKENS))
        await until(lambda: desk.bodies(e.AttemptSuperseded))
        worker.running[turn.task] = fresh
        worker.end(turn.task, echo(fresh))
        await desk.finish(active)
    with EventLog.open(tmp_path, read_only=True) as log:
        assert log.file.ask("SELECT count(*) FROM contents WHERE bytes = '\"stale\"'::BLOB") == [(0,)]


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.lowlevel.checkpoint()


def test_tokens_in_openais_shape_have_a_number_each() -> None:
    content = likelihoods.content_of(Answer(value=msgspec.Raw(b'"hello"'), logprobs=TOKENS))
    assert content is not None
    top = {"token": "\ufffd", "logprob": -9999.0, "bytes": [195]}
    assert likelihoods.as_openai(content) == {
        "content": [
            {"token": "hel", "logprob": -0.25, "bytes": [104, 101, 108], "top_logprobs": [top]},
            {"token": "lo", "logprob": 0.0, "bytes": [108, 111], "top_logprobs": []},
        ],
        "refusal": None,
    }


def test_scores_have_no_place_in_openais_shape() -> None:
    content = likelihoods.content_of(Answer(value=msgspec.Raw(b'"x"'), scores=SCORES))
    assert content is not None and likelihoods.as_openai(content) is None
