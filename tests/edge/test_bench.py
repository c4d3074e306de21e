"""The bench's process: frames in, frames out, nothing else, and an end when its pipe closes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from edge import frames
from gx.core.message import Answer, Failure, Message, Sampling, Turn
from gx.core.protocol import (
    Cancel,
    Count,
    Counted,
    Execute,
    Finished,
    FromBench,
    Load,
    Loaded,
    Measured,
    Ready,
    Refused,
    Signal,
    ToBench,
)
from tests.tiny_lora import write_tiny_lora

LONG = "Tell me a very long story about a ship, an island and a storm."


class Pipe:
    """A bench and the two ends of its pipes."""

    def __init__(self, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edge.bench", "--threads=1", "--slots=3"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        self._splitter = frames.Splitter()
        self._heard: list[FromBench] = []

    def send(self, *messages: ToBench) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(frames.frame(m) for m in messages))
        self.process.stdin.flush()

    def hear(self) -> FromBench:
        assert self.process.stdout is not None
        while not self._heard:
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                raise EOFError
            self._heard += map(frames.from_bench, self._splitter.feed(chunk))
        return self._heard.pop(0)

    def hear_past_signals(self) -> FromBench:
        while isinstance(message := self.hear(), Signal | Measured):
            pass
        return message

    def end(self) -> tuple[int, bytes]:
        """Close its stdin; return its exit status and what it wrote to stderr."""
        assert self.process.stdin is not None and self.process.stderr is not None
        self.process.stdin.close()
        status = self.process.wait(60)
        return status, self.process.stderr.read()


def turn(task: str, text: str = "Hello", max_tokens: int = 20) -> Turn:
    messages = (Message(role="user", content=text),)
    return Turn(
        run="r", task=task, attempt=1, model="tiny", messages=messages, sampling=Sampling(max_tokens=max_tokens)
    )


def load(tiny: str) -> Load:
    return Load(request=1, digest="tiny", path=tiny, context_tokens=None)


@pytest.fixture
def bench() -> Iterator[Pipe]:
    pipe = Pipe()
    assert isinstance(ready := pipe.hear(), Ready)
    assert ready.pid == pipe.process.pid and ready.slots == 3 and "llama-cpp-python" in ready.engine
    yield pipe
    pipe.process.kill()
    pipe.process.wait()


def test_a_bench_loads_counts_and_runs(bench: Pipe, tiny: str) -> None:
    bench.send(load(tiny))
    loaded = bench.hear()
    assert isinstance(loaded, Loaded) and (loaded.request, loaded.card.context_tokens) == (1, 512)
    bench.send(Count(request=2, model="tiny", chats=((Message(role="user", content="Hello"),),)))
    counted = bench.hear()
    assert isinstance(counted, Counted) and counted.request == 2
    bench.send(Execute(turn=turn("a")))
    finished = bench.hear_past_signals()
    assert isinstance(finished, Finished) and isinstance(finished.outcome, Answer)
    assert (finished.task, finished.attempt) == ("a", 1)
    assert finished.outcome.usage.tokens_in == counted.tokens[0]
    assert bench.end() == (0, b"")


def test_a_turn_right_behind_its_load_finds_the_model(bench: Pipe, tiny: str) -> None:
    bench.send(load(tiny), Execute(turn=turn("a")), Execute(turn=turn("b")))
    ends = [m for m in (bench.hear_past_signals() for _ in range(3)) if isinstance(m, Finished)]
    assert {(m.task, type(m.outcome)) for m in ends} == {("a", Answer), ("b", Answer)}


def test_a_load_that_fails_is_refused_in_words(bench: Pipe) -> None:
    bench.send(Load(request=9, digest="x", path="/nowhere/x.gguf"))
    refused = bench.hear()
    assert isinstance(refused, Refused) and (refused.request, refused.failure.code) == (9, "model")
    assert "/nowhere/x.gguf can't be read" in refused.failure.message and not refused.failure.retryable


def test_a_turn_is_cancelled_midway(bench: Pipe, tiny: str) -> None:
    bench.send(load(tiny), Execute(turn=turn("a", max_tokens=450)))
    while not isinstance(bench.hear(), Signal):
        pass
    bench.send(Cancel(task="a", attempt=1), Cancel(task="nobody", attempt=1))
    while not isinstance(finished := bench.hear(), Finished):  # `Loaded` may come before or after the first text
        pass
    assert isinstance(finished.outcome, Failure)
    assert finished.outcome.code == "cancelled" and finished.outcome.usage.tokens_out < 450


def test_the_last_reading_comes_before_the_last_result_and_has_all(bench: Pipe, tiny: str) -> None:
    bench.send(load(tiny), *(Execute(turn=turn(name)) for name in "abcde"))
    heard: list[FromBench] = []
    while sum(isinstance(message, Finished) for message in heard) < 5:
        heard.append(bench.hear())
    assert isinstance(heard[-1], Finished) and isinstance(heard[-2], Measured)
    usages = [message.outcome.usage for message in heard if isinstance(message, Finished)]
    last, counts = heard[-2], heard[-2].counts
    assert (last.slots, last.slots_busy, last.threads) == (3, 0, 0)
    assert (counts.requests, counts.prompt_tokens) == (5, sum(usage.tokens_in for usage in usages))
    assert counts.cached_tokens == sum(usage.tokens_cached for usage in usages)
    assert counts.queue_s == pytest.approx(sum(usage.queue_ms for usage in usages) / 1000) and counts.queue_s > 0
    assert counts.decode_tokens > 0 and counts.busy_s >= counts.prefill_s + counts.decode_s > 0


def test_what_goes_on_is_measured_now_and_then_and_nothing_when_idle(bench: Pipe, packaged: str) -> None:
    bench.send(Load(request=1, digest="tiny", path=packaged), Execute(turn=turn("a", LONG, max_tokens=4000)))
    readings: list[Measured] = []
    while len(readings) < 2 or readings[0].counts.decode_tokens == 0:  # a prompt alone may take longer than a reading
        if isinstance(message := bench.hear(), Measured):
            readings = [*readings, message][-2:]
    first, second = readings
    assert (second.slots_busy, second.threads) == (1, 1)
    assert second.counts.decode_tokens > first.counts.decode_tokens
    bench.send(Cancel(task="a", attempt=1))
    while not isinstance(message := bench.hear(), Finished):
        pass
    time.sleep(2.2)  # longer than between two readings
    bench.send(Count(request=2, model="tiny", chats=()))
    assert isinstance(bench.hear(), Counted)


@pytest.mark.anyio
async def test_a_desk_that_is_behind_misses_readings_and_gets_the_next(tiny: str) -> None:
    from edge.bench import _OUTGOING_SIGNALS, Bench

    bench = Bench(0, 1, context_tokens=None, threads=1, slots=3)
    try:
        bench._engine.register("tiny", tiny)
        bench._obey(Execute(turn=turn("a")), Begun())
        for _ in range(_OUTGOING_SIGNALS):
            bench._to_write.send_nowait(b"")
        with anyio.fail_after(60):
            await bench._run(turn("a"))
        assert bench._to_write.statistics().current_buffer_used == _OUTGOING_SIGNALS + 1  # the result alone
        while bench._to_write.statistics().current_buffer_used:
            frame = bench._written.receive_nowait()
        assert isinstance(frames.from_bench(frame[frames.HEADER_BYTES :]), Finished)
        assert not bench._is_told
        await bench._measure()
        assert bench._is_told
        measured = frames.from_bench(bench._written.receive_nowait()[frames.HEADER_BYTES :])
        assert isinstance(measured, Measured) and measured.counts.requests == 1
    finally:
        bench._engine.close()


@pytest.mark.anyio
async def test_a_model_with_adapters_is_computed_as_its_file_was_tuned(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge import tunings
    from edge.bench import Bench
    from edge.engine.tuning import Tuning
    from edge.sidecars import write_json

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tunings._folder(None)
    folder.mkdir(parents=True)
    note = tunings.Note(
        sha256="f" * 64, file_bytes=1, engine="", cpu="", cores=1, tuning=Tuning(pass_tokens=128), gain=1.0, slots=8
    )
    write_json(tunings._place(folder, "f" * 64, tiny), note)
    adapters = ((str(write_tiny_lora(tmp_path / "lora.gguf")), 1.0),)
    bench = Bench(0, 1, context_tokens=None, threads=1, slots=3)
    try:
        bench._obey(Load(request=1, digest="set", path=tiny, adapters=adapters, sha256="f" * 64), Begun())
        bench._obey(Load(request=2, digest="other", path=tiny, adapters=adapters), Begun())
        for digest, tuning in (("set", note.tuning), ("other", Tuning())):
            with bench._engine._shelf.borrow(digest) as loaded:
                assert loaded.lanes._tuning == tuning
    finally:
        bench._engine.close()


class Begun:
    """A task group that begins nothing."""

    def start_soon(self, *_: object) -> None:
        pass


def test_a_bench_exits_when_its_pipe_closes_even_in_the_middle_of_a_turn(bench: Pipe, packaged: str) -> None:
    bench.send(Load(request=1, digest="tiny", path=packaged), Execute(turn=turn("a", LONG, max_tokens=4000)))
    while not isinstance(bench.hear(), Signal):
        pass
    begun_s = time.monotonic()
    status, _ = bench.end()
    assert status == 0 and time.monotonic() - begun_s < 1.0


def test_a_stray_byte_ends_the_bench_with_a_reason(bench: Pipe) -> None:
    assert bench.process.stdin is not None
    bench.process.stdin.write(b"hello, bench")
    bench.process.stdin.flush()
    assert bench.process.wait(60) == 2
    assert b"these aren't frames" in bench.end()[1]


def test_interrupts_are_the_desks_affair(bench: Pipe, tiny: str) -> None:
    bench.process.send_signal(signal.SIGINT)
    bench.send(load(tiny))
    assert isinstance(bench.hear(), Loaded)


def test_a_rehearsed_crash_aborts_the_process(tiny: str) -> None:
    bench = Pipe({"GX_BENCH_CRASH_ON": "poison"})
    assert isinstance(bench.hear(), Ready)
    bench.send(load(tiny), Execute(turn=turn("a", "harmless")), Execute(turn=turn("b", "some poison here")))
    with pytest.raises(EOFError):
        while True:
            bench.hear()
    assert bench.process.wait(60) == -signal.SIGABRT


def test_nothing_but_frames_reaches_stdout() -> None:
    code = (
        "import os; from edge.bench import _private_pipes; _, outgoing = _private_pipes();"
        "print('stray', flush=True); os.system('echo shell'); os.write(outgoing, b'frame')"
    )
    done = subprocess.run([sys.executable, "-c", code], input=b"", capture_output=True, check=True)
    assert done.stdout == b"frame"
    assert done.stderr == b"stray\nshell\n"
