"""The edge worker: attempts in, events out, and a new bench when the old one dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path

import anyio
import msgspec
import pytest

from edge.cpu import cpu_sets
from edge.slowness import warnings
from edge.throughput import ASSUMED, Throughput
from edge.worker import EdgeWorker
from gx.core.errors import BenchError, ModelError
from gx.core.message import Answer, Failure, Message, Sampling, Turn, Usage
from gx.core.ports import AttemptEnded, BenchDown, BenchReading, BenchUp, Worker, WorkerEvent
from gx.core.protocol import Signal
from gx.core.task import Capacity, EdgeLease
from tests.tiny_bert import write_tiny_bert

pytestmark = pytest.mark.anyio


def turn(task: str, attempt: int = 1, *, text: str = "Hello", model: str = "tiny", max_tokens: int = 20) -> Turn:
    messages = (Message(role="user", content=text),)
    sampling = Sampling(max_tokens=max_tokens)
    return Turn(run="r", task=task, attempt=attempt, model=model, messages=messages, sampling=sampling)


def worker(tiny: str, **env: str) -> EdgeWorker:
    made = EdgeWorker(epoch=3, threads=1, context_tokens=512, env=env)
    made.register("tiny", tiny)
    return made


async def until(source: Worker, kind: type[WorkerEvent]) -> list[WorkerEvent]:
    """The events up to the batch that has one of this kind; the previews and other readings left out."""
    seen: list[WorkerEvent] = []
    with anyio.fail_after(60):
        while not any(isinstance(event, kind) for event in seen):
            got = await source.events()
            seen += [event for event in got if isinstance(event, kind) or not isinstance(event, Signal | BenchReading)]
    return seen


async def test_an_attempt_ends_in_an_answer_and_counts_towards_the_rate(tiny: str) -> None:
    async with worker(tiny) as edge:
        assert edge.lease() == EdgeLease(epoch=3, incarnation=1)
        assert edge.capacity() == Capacity(slots=32, leases=48)
        assert edge.rate() == ASSUMED and edge.quote().usd_per_s == 0
        edge.submit(turn("a"))
        up, ended = await until(edge, AttemptEnded)
        assert isinstance(up, BenchUp) and up.incarnation == 1
        assert isinstance(ended, AttemptEnded) and isinstance(ended.outcome, Answer)
        assert (ended.task, ended.attempt) == ("a", 1) and ended.ms > 0
        assert isinstance(msgspec.json.decode(ended.outcome.value), str)
        rate = edge.rate()
        assert rate.tasks == 1 and rate.tokens_out_per_s > 0
        assert rate.tokens_in_per_s / rate.tokens_out_per_s == pytest.approx(ended.outcome.usage.tokens_in / 20)


async def test_a_model_that_is_registered_again_is_told_once(tiny: str) -> None:
    async with worker(tiny) as edge:
        edge.submit(turn("a"))
        edge.register("tiny", tiny)
        assert edge._models.is_introduced("tiny")
        edge.register("tiny", tiny, 100)
        assert not edge._models.is_introduced("tiny")


async def test_texts_get_vectors_beside_a_turn_that_goes_on(tiny: str, tmp_path: Path) -> None:
    async with worker(tiny) as edge:
        edge.register("bert", str(write_tiny_bert(tmp_path / "bert.gguf")))
        edge.submit(turn("a", max_tokens=200))
        vectors = await edge.embed("bert", ["one text", "another", "one text"])
        one, other, again = (array("f", vector).tolist() for vector in vectors)
        assert len(one) == 64 and sum(x * x for x in one) == pytest.approx(1.0, abs=1e-4)
        assert again == pytest.approx(one, abs=1e-4) and other != pytest.approx(one, abs=1e-2)
        assert await edge.embed("bert", []) == []
        for model, text, code in (
            ("bert", "a b c d " * 200, "context"),
            ("tiny", "a", "model"),
            ("none", "a", "model"),
        ):
            with pytest.raises(ModelError) as told:
                await edge.embed(model, [text])
            assert told.value.code == code
        assert isinstance((await until(edge, AttemptEnded))[-1], AttemptEnded)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process has in memory")
async def test_what_makes_a_model_slow_is_told_without_loading_it(tiny: str, packaged: str) -> None:
    async with worker(tiny) as edge:
        edge.register("slow", packaged)
        (up,) = await until(edge, BenchUp)
        assert isinstance(up, BenchUp)
        assert await edge.warnings("slow") == (warnings(packaged, build=up.engine, has=cpu_sets()), False)
        maps = await anyio.Path(f"/proc/{up.pid}/maps").read_text()
        assert "libllama" in maps and "Q4_1.gguf" not in maps
        with pytest.raises(ModelError, match="no model with the digest unheard"):
            await edge.warnings("unheard")


async def test_how_much_of_a_model_fits_is_known_once_it_is_loaded(tiny: str) -> None:
    async with worker(tiny) as edge:
        edge._build = "llama-cpp-python 1 (GPU AVX2)"
        assert await edge.warnings("tiny") == ((), False)
        card = await edge.describe("tiny")
        assert await edge.warnings("tiny") == (card.warnings, True)


async def test_what_the_bench_did_is_told_with_its_incarnation(tiny: str) -> None:
    async with worker(tiny) as edge:
        edge.submit(turn("a"))
        requests = 0
        while requests == 0:  # a reading is told before the request was taken up, where that takes long
            (told,) = [event for event in await until(edge, BenchReading) if isinstance(event, BenchReading)]
            requests = told.measured.counts.requests
            assert (told.incarnation, told.measured.slots) == (1, 32)
        assert requests == 1


async def test_models_are_described_and_prompts_counted(tiny: str, tmp_path: Path) -> None:
    broken = anyio.Path(tmp_path / "broken.gguf")
    await broken.write_bytes((await anyio.Path(tiny).read_bytes())[:90_000])
    async with worker(tiny) as edge:
        edge.register("broken", str(broken))
        assert (await edge.describe("tiny")).context_tokens == 512
        short, long = await edge.count("tiny", [(Message(role="user", content=t),) for t in ("a", "a b c d")])
        assert short < long
        with pytest.raises(ModelError, match=r"broken\.gguf is cut short or damaged"):
            await edge.describe("broken")
        with pytest.raises(ModelError, match="no model with the digest unheard"):
            await edge.count("unheard", [])
        edge.submit(turn("a", model="unheard"))
        ended = (await until(edge, AttemptEnded))[-1]
        assert isinstance(ended, AttemptEnded) and isinstance(ended.outcome, Failure)
        assert (ended.outcome.code, ended.outcome.retryable) == ("model", False)


async def test_a_killed_bench_ends_its_incarnation_and_the_next_one_works(tiny: str, packaged: str) -> None:
    async with worker(tiny) as edge:
        edge.register("smol", packaged)
        (up,) = await until(edge, BenchUp)
        assert isinstance(up, BenchUp)
        edge.submit(turn("a", model="smol", max_tokens=400))
        while not any(isinstance(event, Signal) for event in await edge.events()):
            pass
        os.kill(up.pid, signal.SIGKILL)
        while edge._supervisor.incarnation != 2:  # noqa: ASYNC110 - events() would tell of the end: before that
            await anyio.sleep(0.01)
        assert edge.lease() is None
        edge.submit(turn("b"))  # its lease is of the bench that died, which nobody was told of yet
        events = await until(edge, BenchUp)
        assert events[0] == BenchDown(incarnation=1, reason="killed by signal 9 (SIGKILL: out of memory?)")
        assert edge.lease() == EdgeLease(epoch=3, incarnation=2)
        edge.submit(turn("a", 2))
        ended = [e for e in await until(edge, AttemptEnded) if isinstance(e, AttemptEnded)]
        assert [(e.task, e.attempt, type(e.outcome)) for e in ended] == [("a", 2, Answer)]


async def test_a_bench_that_dies_of_a_question_says_that_there_was_one(tiny: str) -> None:
    async with worker(tiny) as edge:
        (up,) = await until(edge, BenchUp)
        assert isinstance(up, BenchUp)
        os.kill(up.pid, signal.SIGSTOP)
        asked: list[BenchError] = []

        async def count() -> None:
            try:
                await edge.count("tiny", [(Message(role="user", content="Hi"),)])
            except BenchError as error:
                asked.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            await anyio.wait_all_tasks_blocked()
            os.kill(up.pid, signal.SIGKILL)
            (down,) = await until(edge, BenchDown)
        assert isinstance(down, BenchDown) and down.had_questions and asked


async def test_a_crash_is_a_value(tiny: str) -> None:
    async with worker(tiny, GX_BENCH_CRASH_ON="poison") as edge:
        edge.submit(turn("a", text="this is poison"))
        down = (await until(edge, BenchDown))[-1]
        assert isinstance(down, BenchDown) and "SIGABRT: a GGML assertion?" in down.reason and not down.is_expected


async def test_a_turn_that_is_too_long_to_be_sent_fails_and_no_other(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(tiny) as edge:
        await until(edge, BenchUp)
        monkeypatch.setattr("edge.frames.MAX_BODY_BYTES", 5_000)
        edge.submit(turn("long", text="word " * 2_000))
        edge.submit(turn("short"))
        ended = list[AttemptEnded]()
        while len(ended) < 2:
            ended += [one for one in await until(edge, AttemptEnded) if isinstance(one, AttemptEnded)]
    assert [one.task for one in ended] == ["long", "short"] and isinstance(ended[1].outcome, Answer)
    refused = ended[0].outcome
    assert isinstance(refused, Failure) and (refused.code, refused.retryable) == ("too_long", False)
    assert "at most 5000 are allowed" in refused.message


async def test_a_turn_that_cannot_be_written_fails_and_no_other(tiny: str) -> None:
    async with worker(tiny) as edge:
        await until(edge, BenchUp)
        edge.submit(msgspec.structs.replace(turn("odd"), output_schema={"type": "integer", "maximum": 10**20}))
        (ended,) = await until(edge, AttemptEnded)
        assert isinstance(ended, AttemptEnded) and isinstance(ended.outcome, Failure)
        assert (ended.outcome.code, ended.outcome.retryable) == ("bench", False)
        edge.submit(turn("good"))
        (ended,) = await until(edge, AttemptEnded)
        assert isinstance(ended, AttemptEnded) and isinstance(ended.outcome, Answer)


async def test_a_restart_is_expected_and_gives_its_reason(tiny: str) -> None:
    async with worker(tiny) as edge:
        await until(edge, BenchUp)
        edge.restart("task a does not end")
        events = await until(edge, BenchUp)
        assert events[0] == BenchDown(incarnation=1, reason="task a does not end", is_expected=True)


async def test_a_cancelled_attempt_still_ends(tiny: str, packaged: str) -> None:
    async with worker(tiny) as edge:
        edge.register("smol", packaged)
        edge.submit(turn("a", model="smol", max_tokens=400))
        edge.cancel("a", 1)
        edge.cancel("nobody", 1)
        ended = (await until(edge, AttemptEnded))[-1]
        assert isinstance(ended, AttemptEnded) and isinstance(ended.outcome, Failure)
        assert ended.outcome.code == "cancelled"


async def test_a_bench_that_cannot_start_says_why(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "llama_cpp.py").write_text("raise ImportError('libgomp is missing')")
    with pytest.raises(BenchError, match="exit status 1") as caught:
        async with worker(tiny, PYTHONPATH=str(tmp_path)):
            pass
    assert caught.value.message.count("libgomp is missing") == 1


def deadly(folder: Path, deaths: int) -> dict[str, str]:
    """An environment in which the first `deaths` benches are killed before they are ready; each leaves a line."""
    (folder / "sitecustomize.py").write_text(f"""
import os
with open({str(folder / "starts")!r}, "a+") as file:
    file.write("started\\n")
    file.flush()
    file.seek(0)
    if len(file.readlines()) <= {deaths}:
        os.kill(os.getpid(), 9)
""")
    return {
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # one that was compiled might be taken for the next


def starts(folder: Path) -> int:
    return len((folder / "starts").read_text().splitlines())


async def test_a_bench_that_dies_before_it_is_ready_is_started_again(tiny: str, tmp_path: Path) -> None:
    with anyio.fail_after(60):
        async with worker(tiny, **deadly(tmp_path, 2)) as edge:
            (up,) = await until(edge, BenchUp)
            assert isinstance(up, BenchUp) and up.incarnation == 1
            assert edge.lease() == EdgeLease(epoch=3, incarnation=1)
    assert starts(tmp_path) == 3


async def test_a_bench_that_is_never_ready_is_given_up_with_a_hint(tiny: str, tmp_path: Path) -> None:
    with anyio.fail_after(60), pytest.raises(BenchError) as caught:
        async with worker(tiny, **deadly(tmp_path, 9)):
            pass
    assert starts(tmp_path) == 3
    assert (
        caught.value.message
        == "the bench did not start, 3 times in a row; the last: killed by signal 9 (SIGKILL: out of memory?)"
    )
    assert "gx doctor" in caught.value.hint


async def test_a_bench_that_no_longer_starts_is_given_up(tiny: str, tmp_path: Path) -> None:
    async with worker(tiny, **deadly(tmp_path, 0)) as edge:
        (up,) = await until(edge, BenchUp)
        assert isinstance(up, BenchUp)
        deadly(tmp_path, 9)
        os.kill(up.pid, signal.SIGKILL)
        with anyio.fail_after(60), pytest.raises(BenchError, match="did not start, 3 times in a row"):
            while True:
                await edge.events()
    assert starts(tmp_path) == 4


async def test_an_engine_that_is_not_installed_is_not_tried_again(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "llama_cpp.py").write_text("import an_engine_that_is_not_there")
    env = deadly(tmp_path, 0)
    with anyio.fail_after(60), pytest.raises(BenchError, match="the engine is not installed") as caught:
        async with worker(tiny, **env):
            pass
    assert starts(tmp_path) == 1 and "'.[edge]'" in caught.value.hint


async def test_a_bench_that_always_dies_at_once_is_given_up(tiny: str) -> None:
    async def kill_each(edge: EdgeWorker) -> None:
        while True:
            for event in await edge.events():
                if isinstance(event, BenchUp):
                    os.kill(event.pid, signal.SIGKILL)

    with anyio.fail_after(60):
        async with worker(tiny) as edge:
            with pytest.raises(BenchError, match="5 times in a row"):
                await kill_each(edge)
            with pytest.raises(BenchError):
                await edge.describe("tiny")


async def test_what_goes_wrong_while_it_is_used_comes_out_as_it_is(tiny: str) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with worker(tiny):
            raise KeyError("mine")


async def test_leaving_ends_the_process(tiny: str) -> None:
    async with worker(tiny) as edge:
        (up,) = await until(edge, BenchUp)
    assert isinstance(up, BenchUp)
    with pytest.raises(ProcessLookupError):
        os.kill(up.pid, 0)


async def test_nothing_is_asked_of_a_worker_that_is_closed_and_nobody_waits_for_it(tiny: str) -> None:
    async with worker(tiny) as edge:
        await edge.aclose()
        assert edge.lease() is None
        edge.submit(turn("a"))
        with anyio.fail_after(10):
            with pytest.raises(BenchError, match="closed"):
                await edge.describe("tiny")
            with pytest.raises(BenchError, match="closed"):
                await edge.warnings("tiny")


async def test_who_waits_for_a_bench_is_told_when_the_worker_closes(tiny: str) -> None:
    errors: list[BenchError] = []

    async def ask(edge: EdgeWorker) -> None:
        try:
            await edge.describe("tiny")
        except BenchError as error:
            errors.append(error)

    async with worker(tiny) as edge:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                edge._supervisor.bench = None  # as between two of them
                group.start_soon(ask, edge)
                await anyio.wait_all_tasks_blocked()
                await edge.aclose()
    assert errors


def test_the_bench_ends_with_a_desk_that_is_killed() -> None:
    code = (
        "import anyio, os, signal; from edge.worker import EdgeWorker\n"
        "async def main():\n"
        "    async with EdgeWorker(epoch=1, threads=1) as edge:\n"
        "        (up,) = await edge.events()\n"
        "        print(up.pid, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "anyio.run(main)"
    )
    desk = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=180)
    assert desk.returncode == -signal.SIGKILL
    deadline_s = time.monotonic() + 5
    while is_running(int(desk.stdout)):
        assert time.monotonic() < deadline_s, "the bench outlived its desk"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie: an orphan's new parent may take its time to bury it."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_rates_forget_old_turns_and_count_only_busy_time() -> None:
    throughput = Throughput()
    for start in range(0, 1000, 10):  # ten tokens in one second, then nine seconds of nothing
        throughput.begin(float(start))
        throughput.end(Usage(tokens_in=100, tokens_out=10), start + 1.0, is_idle=True)
    assert throughput.rate().tokens_out_per_s == pytest.approx(10.0)
    for start in range(1000, 1040):  # then one after the other, at twice the pace
        throughput.begin(start / 2)
        throughput.end(Usage(tokens_in=100, tokens_out=10), start / 2 + 0.5, is_idle=True)
    assert throughput.rate().tokens_out_per_s == pytest.approx(20.0, rel=0.05)
    assert throughput.rate().tasks == 140


def test_the_worker_loads_no_engine() -> None:
    code = (
        "import sys, edge.worker\n"
        "heavy = {'llama_cpp', 'numpy', 'duckdb', 'llguidance', 'jinja2', 'edge.engine'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
