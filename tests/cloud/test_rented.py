"""The worker over rented containers: the real SDK, the deployed app and its real containers, on the loopback."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from cloud import deploy
from cloud.cost import CORES, LEAST_GIB
from cloud.loopback.faults import Faults, Lost
from cloud.message import Weights
from cloud.rented import Account, Gone, Pool, rent
from cloud.worker import CloudWorker
from gx.core.errors import CloudError
from gx.core.message import Answer, Failure, Message, Sampling, Turn
from gx.core.ports import AttemptEnded, AttemptGone, CallMade, ContainerSeen, RentRefused, WorkerEvent
from gx.core.task import CloudLease, Quote
from gx.run.rent.refusals import FOR_GOOD
from tests.cloud.world import World, world
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf", context=512)


def account(made: World) -> Account:
    token = made.environ
    return Account(token_id=token["MODAL_TOKEN_ID"], token_secret=token["MODAL_TOKEN_SECRET"], url=made.url)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


async def furnish(made: World, file: Path) -> None:
    """The app, and a model on its volume."""
    await deploy.deploy(account(made))
    await deploy.upload(account(made), digest(file), file)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[World]:
    """A plane without faults, where the bench is deployed."""
    with world(tmp_path_factory.mktemp("stand")) as made:
        anyio.run(furnish, made, tiny)
        yield made


@asynccontextmanager
async def rented(
    made: World, file: Path, run: str, *, containers: int = 1, **pool: object
) -> AsyncIterator[CloudWorker]:
    """A worker of its own for a run."""
    chosen = Pool(run=run, gpu="L4", slots=2, max_containers=containers, scaledown_s=2, **pool)  # type: ignore[arg-type]
    async with (
        rent(chosen, account(made)) as calls,
        CloudWorker(calls, run=run, gpu="L4", driver=f"driver of {run}", inputs=4, quote=Quote()) as worker,
    ):
        worker.register(Weights(digest="tiny", sha256=digest(file), context_tokens=512))
        worker.scale(containers)
        worker.vouch(time.time() + 600)
        yield worker


def turn(task: str, *, attempt: int = 1, max_tokens: int = 8) -> Turn:
    messages = (Message(role="user", content=f"Hello {task}"),)
    return Turn(
        run="r", task=task, attempt=attempt, model="tiny", messages=messages, sampling=Sampling(max_tokens=max_tokens)
    )


async def heard(worker: CloudWorker, is_enough: Callable[[list[WorkerEvent]], bool]) -> list[WorkerEvent]:
    """What a worker says, until that is enough."""
    seen: list[WorkerEvent] = []
    with anyio.fail_after(90):
        while not is_enough(seen):
            seen.extend(await worker.events())
    return seen


def of(events: list[WorkerEvent], kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


async def test_turns_are_answered_by_containers_that_ship_their_own_code(stand: World, tiny: Path) -> None:
    async with rented(stand, tiny, "one") as worker:
        assert worker.lease() == CloudLease(call="", gpu="L4")
        assert (worker.capacity().slots, worker.capacity().leases) == (4, 6)
        for task in "abc":
            worker.submit(turn(task))
        seen = await heard(worker, lambda seen: len(of(seen, AttemptEnded)) == 3)
        assert {event.task for event in of(seen, AttemptEnded)} == set("abc")
        assert all(isinstance(event.outcome, Answer) and event.ms > 0 for event in of(seen, AttemptEnded))
        assert {event.task for event in of(seen, CallMade)} == set("abc")
        (container,) = {event.container for event in of(seen, ContainerSeen)}
        assert container and all(0 < e.began_at <= e.seen_at <= time.time() for e in of(seen, ContainerSeen))
        assert not of(seen, AttemptGone)


async def test_an_attempt_is_found_again_by_its_call(stand: World, tiny: Path) -> None:
    async with rented(stand, tiny, "two") as first:
        first.submit(turn("a", max_tokens=40))
        (made,) = of(await heard(first, lambda seen: bool(of(seen, CallMade))), CallMade)
        first._following.drop(("a", 1))  # it dies: nobody cancels what it began
    async with rented(stand, tiny, "two") as second:
        second.reattach("a", 1, made.call)
        (ended,) = of(await heard(second, lambda seen: bool(of(seen, AttemptEnded))), AttemptEnded)
        assert (ended.task, ended.attempt) == ("a", 1) and isinstance(ended.outcome, Answer)


async def test_an_attempt_whose_call_nobody_knows_is_submitted_again_and_runs_once(stand: World, tiny: Path) -> None:
    async with rented(stand, tiny, "three") as first:
        first.submit(turn("a"))
        seen = await heard(first, lambda seen: bool(of(seen, AttemptEnded)))
        (made,) = of(seen, CallMade)
    async with rented(stand, tiny, "three") as second:  # the call was made, and the log doesn't know
        second.submit(turn("a"))
        seen = await heard(second, lambda seen: bool(of(seen, AttemptEnded)))
        assert [event.call for event in of(seen, CallMade)][-1] == made.call, "it follows the one that claimed it"


async def test_a_cancelled_attempt_is_answered_and_its_neighbour_goes_on(stand: World, tiny: Path) -> None:
    async with rented(stand, tiny, "four") as worker:
        worker.submit(turn("a", max_tokens=400))
        worker.submit(turn("b", max_tokens=100))
        await heard(worker, lambda seen: len(of(seen, CallMade)) == 2)
        worker.cancel("a", 1)
        seen = await heard(worker, lambda seen: len(of(seen, AttemptEnded)) == 2)
        outcomes = {event.task: event.outcome for event in of(seen, AttemptEnded)}
        assert isinstance(outcomes["a"], Failure) and outcomes["a"].code == "cancelled"
        assert isinstance(outcomes["b"], Answer)


async def test_an_attempt_whose_model_was_not_uploaded_comes_home_and_nothing_more_is_rented_for_it(
    stand: World, tiny: Path
) -> None:
    assert set((await deploy.status(account(stand))).models) == {digest(tiny)}
    async with rented(stand, tiny, "five") as worker:
        worker.register(Weights(digest="other", sha256="ab" * 32))
        worker.submit(Turn(run="r", task="a", attempt=1, model="other", messages=turn("a").messages))
        seen = await heard(worker, lambda seen: bool(of(seen, AttemptGone)))
        (gone,), (refused,) = of(seen, AttemptGone), of(seen, RentRefused)
        assert not gone.is_suspect and "is not on the volume" in gone.reason
        assert (refused.code, refused.stops) == ("cloud.model", True) and refused.code in FOR_GOOD


async def test_a_container_that_is_killed_has_its_inputs_run_again_and_each_is_answered_once(
    tmp_path: Path, tiny: Path
) -> None:
    faults = Faults(kill=(2,), refuse=(4,), lose=(Lost(rpc="FunctionGetOutputs", nth=3, times=2),))
    with world(tmp_path / "plane", faults=faults) as made:
        await furnish(made, tiny)
        async with rented(made, tiny, "six") as worker:
            for n in range(8):
                worker.submit(turn(f"t{n}", max_tokens=30))
            seen = await heard(worker, lambda seen: len(of(seen, AttemptEnded)) + len(of(seen, AttemptGone)) >= 8)
            assert not of(seen, AttemptGone), made.lines()[-30:]
            assert sorted(event.task for event in of(seen, AttemptEnded)) == [f"t{n}" for n in range(8)]
            assert len(of(seen, RentRefused)) == 1
        struck = made.report().faults
        assert "kill at delivery 2" in struck and "refused spawn 4" in struck, struck


async def test_without_a_token_or_an_app_it_says_what_to_do(stand: World, tmp_path: Path, tiny: Path) -> None:
    wrong = Account(token_id="ak-wrong", token_secret="as-wrong", url=stand.url)
    with pytest.raises(CloudError) as refused:
        await deploy.status(wrong)
    assert refused.value.code == "cloud.token"
    with world(tmp_path / "empty") as made:
        with pytest.raises(CloudError) as missing:
            async with rented(made, tiny, "seven"):
                raise AssertionError
        assert missing.value.code == "cloud.missing" and "gx cloud deploy" in missing.value.hint


@pytest.mark.parametrize(
    ("cls", "method", "given", "reason"),
    [("Sleeper", "late", (), "before it took an input"), ("Hasty", "nap", (60,), "took longer than")],
)
async def test_a_container_that_can_t_start_or_takes_too_long_makes_no_attempt_a_suspect(
    stand: World, cls: str, method: str, given: tuple[object, ...], reason: str
) -> None:
    await anyio.to_thread.run_sync(stand.deploy)
    begin = getattr(stand.worker(cls=cls)(), method).spawn.aio
    call = await begin(*given)
    async with rent(Pool(run="eight", gpu="L4"), account(stand)) as calls:
        with anyio.fail_after(90), pytest.raises(Gone) as gone:
            while await calls.poll(call.object_id) is None:  # noqa: ASYNC110  nobody is told of that
                await anyio.sleep(0.2)
    assert reason in gone.value.reason and not gone.value.is_suspect and not gone.value.is_expired
    assert gone.value.is_late is (method == "nap")


async def test_a_container_may_use_no_more_than_it_asks_for_which_is_what_its_models_need(stand: World) -> None:
    for pool, gib in ((Pool(run="nine", gpu="L4"), LEAST_GIB), (Pool(run="ten", gpu="L4", memory_gib=11), 11)):
        async with rent(pool, account(stand)):
            asked = stand.definitions()[-1].resources
        assert (asked.milli_cpu, asked.milli_cpu_max) == (1000 * CORES, 1000 * CORES)
        assert (asked.memory_mb, asked.memory_mb_max) == (1024 * gib, 1024 * gib)
        assert asked.gpu_config.gpu_type == "L4"
