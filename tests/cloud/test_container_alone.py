"""What a container does with a job, whoever rents it out: a real bench, and a board that is a dictionary."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import pytest

from cloud import message as m
from cloud.container import Container
from gx.core.message import Answer, Message, Sampling, Turn
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.anyio
SHA = "ab" * 32


class Noticeboard:
    """Claims and leases, as the Dict of a run has them."""

    def __init__(self) -> None:
        self.claims: dict[str, str] = {}
        self.until: dict[str, float] = {"driver": time.time() + 600}
        self.asked = 0
        self.words: dict[str, bytes] = {}

    async def claim(self, key: str, call: str) -> str:
        return self.claims.setdefault(key, call)

    async def paid_until(self, driver: str) -> float:
        self.asked += 1
        return self.until.get(driver, 0.0)

    async def say(self, key: str, value: bytes) -> None:
        self.claims[key] = repr(value)
        self.words[key] = value


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volume")
    write_tiny_model(folder / f"{SHA}.gguf", context=512)
    return folder


@asynccontextmanager
async def container(models: Path, board: Noticeboard, name: str = "ta-1") -> AsyncIterator[Container]:
    made = Container(name=name, models=models, board=board, slots=2)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def job(task: str, *, attempt: int = 1, max_tokens: int = 8, sha256: str = SHA, driver: str = "driver") -> bytes:
    turn = Turn(
        run="r",
        task=task,
        attempt=attempt,
        model="tiny",
        messages=(Message(role="user", content="Hello"),),
        sampling=Sampling(max_tokens=max_tokens),
    )
    weights = m.Weights(digest="tiny", sha256=sha256, context_tokens=512)
    return m.pack(m.Job(turn=turn, weights=weights, claim=f"r/{task}/{attempt}", driver=driver))


async def reply(container: Container, payload: bytes, call: str = "fc-1") -> m.Done | m.Lost | m.Taken | m.Unpaid:
    report = m.read_report(await container.execute(payload, call))
    assert report.seat.container == "ta-1" and 0 < report.seat.began_at <= report.seat.now
    return report.reply


async def both_run(container: Container) -> None:
    """Wait until two jobs are at the bench."""
    with anyio.fail_after(60):
        while len(container._running) < 2:  # noqa: ASYNC110  nobody is told of that
            await asyncio.sleep(0.01)


async def test_a_job_is_claimed_and_answered(models: Path) -> None:
    board = Noticeboard()
    async with container(models, board) as one:
        done = await reply(one, job("a"))
        assert isinstance(done, m.Done) and isinstance(done.outcome, Answer) and done.ms > 0
        assert isinstance(msgspec.json.decode(done.outcome.value), str)
    assert board.claims["r/a/1"] == "fc-1"


async def test_a_job_that_another_call_has_claimed_is_not_run(models: Path) -> None:
    board = Noticeboard()
    board.claims["r/a/1"] = "fc-0"
    async with container(models, board) as one:
        assert await reply(one, job("a")) == m.Taken(call="fc-0")
        assert isinstance(await reply(one, job("a"), "fc-0"), m.Done)  # it was queued again: the claim is its own


async def test_nothing_is_begun_that_nobody_pays_for(models: Path) -> None:
    board = Noticeboard()
    async with container(models, board) as one:
        assert await reply(one, job("a", driver="a stranger")) == m.Unpaid()
        board.until["driver"] = time.time() - 1
        assert await reply(one, job("a")) == m.Unpaid()
        assert board.claims == {}
        board.until["driver"] = time.time() + 600
        asked = board.asked
        for task in "abc":
            assert isinstance(await reply(one, job(task)), m.Done)
        assert board.asked == asked + 1  # what a driver said holds until then


async def test_a_model_that_a_container_lacks_or_can_t_load_is_no_failure_of_the_task(models: Path) -> None:
    (models / f"{'ef' * 32}.gguf").write_bytes(b"GGUF and no more")
    async with container(models, Noticeboard()) as one:
        for sha256, reason in (("cd" * 32, "is not on the volume"), ("ef" * 32, "cut short")):
            lost = await reply(one, job(sha256, sha256=sha256))
            assert isinstance(lost, m.Lost) and lost.is_model and lost.is_claimed and not lost.is_suspect
            assert reason in lost.reason
        assert isinstance(await reply(one, job("a")), m.Done), "and another model can be used there"


async def test_a_bench_that_dies_loses_what_it_ran_and_the_next_job_runs_on_another(models: Path) -> None:
    async with container(models, Noticeboard()) as one:
        running = [asyncio.create_task(one.execute(job(task, max_tokens=400), "fc-1")) for task in "ab"]
        await both_run(one)
        worker = await one._bench()
        bench = worker._supervisor.bench
        assert bench is not None
        os.kill(bench.pid, signal.SIGKILL)
        for report in await asyncio.gather(*running):
            lost = m.read_report(report).reply
            assert isinstance(lost, m.Lost) and "signal" in lost.reason.lower() and lost.is_claimed and not lost.alone
        assert isinstance(await reply(one, job("a", attempt=2)), m.Done)


async def test_a_job_that_is_cancelled_leaves_its_neighbours_alone(models: Path) -> None:
    async with container(models, Noticeboard()) as one:
        given_up = asyncio.create_task(one.execute(job("a", max_tokens=400), "fc-1"))
        neighbour = asyncio.create_task(one.execute(job("b", max_tokens=60), "fc-2"))
        await both_run(one)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        done = m.read_report(await neighbour).reply
        assert isinstance(done, m.Done) and isinstance(done.outcome, Answer)
        assert not one._running


async def test_what_goes_wrong_in_a_container_is_told_and_never_raised(models: Path) -> None:
    async with container(models, Noticeboard()) as made:
        lost = await reply(made, b"no job")
    assert isinstance(lost, m.Lost) and not lost.is_suspect and lost.reason.startswith("its container failed")


async def test_what_goes_wrong_before_a_job_is_claimed_says_that_it_has_no_claim(models: Path) -> None:
    class Away(Noticeboard):
        async def claim(self, key: str, call: str) -> str:
            raise OSError("no way there")

    async with container(models, Away()) as made:
        lost = await reply(made, job("a"))
    assert isinstance(lost, m.Lost) and not lost.is_claimed and not lost.is_suspect and "no way there" in lost.reason


async def test_containers_that_have_answered_nothing_yet_say_each_in_its_own_place_that_they_are_up(
    models: Path,
) -> None:
    board = Noticeboard()
    async with container(models, board, "ta-1"), container(models, board, "ta-2"):
        with anyio.fail_after(60):
            while len(board.words) < 2:  # noqa: ASYNC110  nobody is told of that
                await asyncio.sleep(0.01)
    seats = {key: m.read_seat(value) for key, value in board.words.items()}
    assert {key: seat.container for key, seat in seats.items()} == {"up/0": "ta-1", "up/1": "ta-2"}
    assert all(0 < seat.began_at <= seat.now for seat in seats.values())
