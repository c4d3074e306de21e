"""Where llama.cpp can't cut or copy, a prompt is computed for itself, an answer ends, and everybody gets a result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.engine.engine import Completion, Engine, Request, Weights
from edge.engine.llama import Context
from edge.engine.slots import Copy, Cut, Move
from gx.core.errors import BenchError
from gx.core.message import Failure, Message, Sampling
from tests.tiny_model import write_tiny_model

LONG = " ".join(f"word{number}" for number in range(120))


class Trouble:
    """A context whose moves fail where `fails` says so."""

    def __init__(self) -> None:
        self.fails: Callable[[Move], bool] = lambda move: False
        self.failed: list[Move] = []

    def install(self, patch: pytest.MonkeyPatch) -> None:
        works = Context.move

        def move(context: Context, moves: Iterable[Move]) -> None:
            for one in moves:
                if self.fails(one):
                    self.failed.append(one)
                    works(context, [one])  # a copy was made that then could not be cut
                    raise BenchError("it can't be cut back")
                works(context, [one])

        patch.setattr(Context, "move", move)


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Trouble:
    trouble = Trouble()
    trouble.install(monkeypatch)
    return trouble


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(threads=1, slots=8, context_tokens=1024)
    engine.register("tiny", str(write_tiny_model(tmp_path / "tiny.gguf")))
    engine.submit(ask("load")).result(30)
    yield engine
    engine.close()


def ask(text: str, max_tokens: int = 1, **fields: Any) -> Request:
    message = Message(role="user", content=text)
    fields.setdefault("sampling", Sampling(max_tokens=max_tokens))
    return Request(model="tiny", messages=(message,), ignores_end=True, **fields)


def check_all_free(engine: Engine) -> None:
    engine.measure().result(10)  # the round is over
    (loaded,) = engine._shelf._loaded.values()
    assert not loaded.users and engine._rounds.is_idle
    for lane in loaded.lanes._lanes:
        assert lane.is_idle and lane._slots.n_free == len(lane._slots)


def test_who_can_not_copy_a_prompt_computes_it(engine: Engine, trouble: Trouble) -> None:
    expected = [engine.submit(ask(f"{LONG} {n}", 20)).result(30) for n in range(4)]
    (loaded,) = engine._shelf._loaded.values()
    loaded.lanes._lanes[0]._slots._planned[:] = loaded.lanes._lanes[0]._slots._held[:] = 0
    trouble.fails = lambda move: isinstance(move, Copy)
    with engine._rounds._changed:  # the first ends while the others wait for it
        futures = [engine.submit(ask(f"{LONG} {n}", 1 if n == 0 else 20)) for n in range(4)]
    results = [future.result(30) for future in futures]
    assert all(isinstance(result, Completion) for result in results)
    assert len(trouble.failed) == 3
    assert [r.text for r in results[1:]] == [r.text for r in expected[1:]]  # type: ignore[union-attr]
    assert all(result.usage.tokens_cached == 0 for result in results)
    check_all_free(engine)


def test_who_can_not_be_cut_back_to_its_prompt_computes_it(engine: Engine, trouble: Trouble) -> None:
    expected = engine.submit(ask(f"{LONG} and more", 20)).result(30)
    trouble.fails = lambda move: isinstance(move, Cut) and move.n_tokens > 100
    again = engine.submit(ask(f"{LONG} and more", 20)).result(30)
    assert isinstance(again, Completion) and isinstance(expected, Completion)
    assert len(trouble.failed) == 1 and again.text == expected.text and not again.usage.tokens_cached
    check_all_free(engine)


def test_options_that_can_not_be_taken_back_fail_alone(engine: Engine, trouble: Trouble) -> None:
    options = ("yes, by all means", "no", "perhaps so, who knows")
    trouble.fails = lambda move: isinstance(move, Cut) and 0 < move.n_tokens < 40
    with engine._rounds._changed:
        weighed = engine.submit(ask("short", options=options))
        others = [engine.submit(ask(f"{n} {LONG}", 30)) for n in range(3)]
    failure = weighed.result(30)
    assert isinstance(failure, Failure) and failure.retryable and failure.code == "bench"
    assert all(isinstance(other.result(30), Completion) for other in others)
    trouble.fails = lambda move: False
    assert isinstance(engine.submit(ask("short", options=options)).result(30), Weights)
    check_all_free(engine)
