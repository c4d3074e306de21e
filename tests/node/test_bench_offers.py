"""The node's bench: what was offered is known to every worker, and what slows models down is told without loading."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from edge.worker import EdgeWorker
from gx import wiring
from gx.core.errors import BenchError, ModelError
from gx.core.ports import BenchUp, Worker
from gx.node.bench import Bench
from gx.settings import Settings
from tests.fakes import ScriptedWorker
from tests.tiny_model import packaged_model, write_tiny_model

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf", context=512)


def model(name: str, path: Path, *, copy: Path | None = None) -> wiring.LocalModel:
    return wiring.LocalModel(
        name=name, path=path, sha256=name, size_bytes=1, context_tokens=None, digest=name, copy=copy
    )


def edge_bench(*models: wiring.LocalModel) -> Bench:
    return Bench(lambda: wiring.edge_worker(Settings(threads=1), 1, lambda: models))


async def weights_of(worker: Worker) -> set[str]:
    """The model files that the bench's process has in memory."""
    with anyio.fail_after(60):
        up = next(event for event in await worker.events() if isinstance(event, BenchUp))
    lines = (await anyio.Path(f"/proc/{up.pid}/maps").read_text()).splitlines()
    return {line.split("/")[-1] for line in lines if line.endswith(".gguf")}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process has in memory")
async def test_warnings_come_without_any_model_in_memory(tiny: Path) -> None:
    large = packaged_model()
    bench = edge_bench(model("tiny", tiny), model("large", large), model("gone", tiny.with_name("gone.gguf")))
    async with bench.open() as worker:
        names = {"a": "tiny", "b": "large", "again": "large", "c": "gone", "d": "unheard"}
        expected, is_all = await wiring.warnings_of(worker, "large")
        told, all_told = list[str](), anyio.Event()

        async def listen() -> None:
            async for warning in bench.warnings(names):
                told.append(warning)
                if len(told) == len(expected):
                    all_told.set()

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(listen)
                if expected:
                    await all_told.wait()
                await anyio.sleep(0.05)  # no more is to come: what is known once they were loaded never is
                group.cancel_scope.cancel()
        assert await weights_of(worker) == set() and not is_all
        assert [text.partition(": ")[2] for text in told] == list(expected)
        assert all(text.startswith(("a: ", "b: ")) for text in told)


async def test_a_model_is_offered_to_the_worker_that_is_up_and_to_the_next_one(tiny: Path) -> None:
    bench = edge_bench()
    for _ in range(2):
        async with bench.open() as worker:
            bench.offer([model("tiny", tiny), model("other", tiny.with_name("gone.gguf"), copy=tiny)])
            bench.offer([model("tiny", tiny)])
            assert (await worker.describe("tiny")).path == str(tiny)
            assert (await worker.describe("other")).path == str(tiny)
    assert repr(bench) == "<Bench down, 2 models offered>"
    async with bench.open() as worker:
        assert isinstance(worker, EdgeWorker)
        assert [worker._models.place(name).path for name in ("tiny", "other")] == [str(tiny)] * 2


async def test_what_is_offered_again_is_not_loaded_again(tiny: Path) -> None:
    bench = edge_bench(model("tiny", tiny))
    async with bench.open() as worker:
        assert isinstance(worker, EdgeWorker)
        await worker.describe("tiny")
        bench.offer([model("tiny", tiny)])
        assert worker._models.is_introduced("tiny")
        with pytest.raises(ModelError, match="no model"):
            await worker.describe("unheard")


async def test_a_bench_outlives_a_worker_that_ends_with_an_error() -> None:
    workers: list[ScriptedWorker] = []

    @asynccontextmanager
    async def make() -> AsyncIterator[Worker]:
        workers.append(ScriptedWorker())
        yield workers[-1]

    bench = Bench(make)
    told = list[str]()

    async def listen() -> None:
        told.extend([warning async for warning in bench.warnings({"a": "x"})])
        told.append("heard")

    with pytest.raises(BenchError, match="no bench"):
        async with bench.open():
            raise BenchError("no bench can be kept up")
    assert repr(bench) == "<Bench down, 0 models offered>"
    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        assert not told  # the worker that is gone isn't asked
        async with bench.open() as worker:
            assert worker is workers[1]
            with anyio.fail_after(60):
                while not told:
                    await anyio.wait_all_tasks_blocked()
    assert told == ["heard"]


async def test_a_recipe_s_model_brings_its_prepared_copy(tiny: Path, tmp_path: Path) -> None:
    async with edge_bench(model("tiny", tmp_path / "gone.gguf", copy=tiny)).open() as worker:
        assert (await worker.describe("tiny")).path == str(tiny)
