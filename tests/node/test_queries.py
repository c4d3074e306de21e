"""Questions that many ask at once are put once, and rest while there is work."""

from __future__ import annotations

import threading
import time

import anyio
import pytest

from gx.core.errors import QueryError
from gx.core.tables import Table
from gx.node.endpoints import Query
from gx.node.queries import SHARE, Queries

pytestmark = pytest.mark.anyio


class Asked:
    """Answers with how many questions came before, once it is let go."""

    def __init__(self) -> None:
        self.sql: list[str] = []
        self.may_answer = threading.Event()

    def __call__(self, question: Query) -> Table:
        self.sql.append(question.sql)
        self.may_answer.wait(60)
        if question.sql == "wrong":
            raise QueryError("no such column")
        return Table(columns=("n",), rows=[{"n": len(self.sql)}])


async def begun(asked: Asked, n: int) -> None:
    with anyio.fail_after(60):
        while len(asked.sql) < n:  # noqa: ASYNC110  a thread says so
            await anyio.sleep(0.001)


async def test_who_waits_for_the_same_gets_one_answer_that_is_newer_than_every_question() -> None:
    asked, answers = Asked(), list[int]()
    queries = Queries(asked, is_busy=lambda: False)

    async def ask(sql: str) -> None:
        answers.append((await queries.answer(Query(sql=sql))).rows[0]["n"])

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(ask, "slow")
            await begun(asked, len(answers) + 1)
        group.start_soon(ask, "another")
        await begun(asked, 2)  # both lanes are taken
        for _ in range(5):
            group.start_soon(ask, "the same")
        await anyio.wait_all_tasks_blocked()
        asked.may_answer.set()
    assert asked.sql.count("the same") == 1 and len(answers) == 8
    assert asked.sql.count("slow") == 2  # the first had begun when the second was asked


async def test_an_error_reaches_everybody_who_asked_and_nobody_later() -> None:
    asked, errors = Asked(), list[str]()
    queries = Queries(asked, is_busy=lambda: False)

    async def ask(sql: str) -> None:
        try:
            await queries.answer(Query(sql=sql))
        except QueryError as error:
            errors.append(error.message)

    async with anyio.create_task_group() as group:
        for sql in ("one", "two"):
            group.start_soon(ask, sql)
        await begun(asked, 2)  # both lanes are taken
        for _ in range(3):
            group.start_soon(ask, "wrong")
        await anyio.wait_all_tasks_blocked()
        asked.may_answer.set()
    assert errors == ["no such column"] * 3 and asked.sql.count("wrong") == 1
    await ask("wrong")
    assert len(errors) == 4 and asked.sql.count("wrong") == 2
    assert (await queries.answer(Query(sql="right"))).rows == [{"n": 5}]


async def test_whoever_goes_away_takes_no_answer_from_the_others() -> None:
    asked = Asked()
    queries = Queries(asked, is_busy=lambda: False)
    async with anyio.create_task_group() as group:
        for sql in ("one", "two"):
            group.start_soon(queries.answer, Query(sql=sql))
        await begun(asked, 2)
        first = anyio.CancelScope()

        async def give_up() -> None:
            with first:
                await queries.answer(Query(sql="the same"))

        group.start_soon(give_up)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(queries.answer, Query(sql="the same"))
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        await anyio.wait_all_tasks_blocked()
        asked.may_answer.set()
    assert asked.sql.count("the same") == 1


async def test_while_work_goes_on_answers_take_a_share_of_the_time() -> None:
    took_s = 0.01

    def answer(question: Query) -> Table:
        time.sleep(took_s)
        return Table(columns=(), rows=[])

    queries = Queries(answer, is_busy=lambda: True)
    began = time.monotonic()
    for _ in range(4):
        await queries.answer(Query(sql="select 1"))
    assert time.monotonic() - began >= 3 * took_s / SHARE  # three rests lie between them
