"""Who stops waiting for an answer lets the bench know, once; who has it, or another one, doesn't."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from edge.questions import Questions
from gx.core.errors import BenchError
from gx.core.protocol import Counted, Leave, Rank, Ranked, ToBench

pytestmark = pytest.mark.anyio


async def test_a_question_whose_asker_goes_away_is_left_and_one_that_was_answered_is_not() -> None:
    sent: list[ToBench] = []
    questions = Questions()

    def make(number: int) -> Rank:
        return Rank(request=number, model="m", question="q", passages=("p",))

    async with anyio.create_task_group() as group:
        group.start_soon(questions.ask, sent.append, make, Ranked)
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert sent == [make(1), Leave(request=1)] and not questions.are_open

    async with anyio.create_task_group() as group:
        group.start_soon(questions.ask, sent.append, make, Ranked)
        await anyio.lowlevel.checkpoint()
        questions.settle(Ranked(request=2, scores=(1.0,)))
    assert sent[2:] == [make(2)]


async def test_an_answer_to_something_else_is_the_bench_s_error() -> None:
    questions = Questions()

    async def ask() -> None:
        with pytest.raises(BenchError, match="answered with Counted in place of Ranked"):
            await questions.ask(lambda message: None, lambda n: Leave(request=n), Ranked)

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.lowlevel.checkpoint()
        questions.settle(Counted(request=1, tokens=()))
    assert not questions.are_open
