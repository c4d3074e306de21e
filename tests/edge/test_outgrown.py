"""What one lane has computed isn't computed again by another: a chat that outgrew its slot takes it along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from edge.engine import lane, rounds
from edge.engine.cache import Cache
from edge.engine.engine import Completion, Engine, Request
from edge.engine.llama import Context
from gx.core.errors import BenchError
from gx.core.message import Message, Sampling
from tests.tiny_model import write_tiny_model

HISTORY = (Message(role="user", content="word " * 400),)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(threads=1, slots=4, context_tokens=4096, cache_bytes=1 << 30)
    engine.register("tiny", str(write_tiny_model(tmp_path / "tiny.gguf", context=4096)))
    yield engine
    engine.close()


def together(engine: Engine, chats: Sequence[tuple[Message, ...]], max_tokens: int) -> list[Completion]:
    """What is said in chats that come at once, each in a slot of its own."""
    sampling = Sampling(max_tokens=max_tokens)
    with engine._rounds._changed:
        futures = [
            engine.submit(Request(model="tiny", messages=chat, sampling=sampling, ignores_end=True)) for chat in chats
        ]
    results = [future.result(60) for future in futures]
    assert all(isinstance(result, Completion) for result in results)
    return cast(list[Completion], results)


def say(engine: Engine, messages: tuple[Message, ...], max_tokens: int) -> Completion:
    return together(engine, [messages], max_tokens)[0]


def sizes(engine: Engine) -> list[int]:
    (loaded,) = engine._shelf._loaded.values()
    return [lane.state().slot_tokens for lane in loaded.lanes._lanes]


def follow_up(first: Completion) -> tuple[Message, ...]:
    return (*HISTORY, Message(role="assistant", content=first.text), Message(role="user", content="Go on."))


def test_a_chat_that_outgrows_its_slot_takes_what_was_computed_along(engine: Engine) -> None:
    first = say(engine, HISTORY, 8)
    assert 300 < first.usage.tokens_in < 1000 and sizes(engine) == [1024]
    grown = say(engine, follow_up(first), 1200)
    assert sizes(engine) == [1024, 2048]
    assert grown.usage.tokens_cached >= first.usage.tokens_in - 8  # but for how the template closes the first answer
    again = say(engine, (*HISTORY, Message(role="user", content="And this?")), 8)  # what is long goes to the short, too
    assert again.usage.tokens_cached >= first.usage.tokens_in - 8


def test_chats_that_outgrow_their_slots_together_each_take_theirs_along(engine: Engine) -> None:
    """They begin alike, so that each could wait for what another computes, which is much less than it has."""
    system = Message(role="system", content="Be brief. " * 20)
    chats = [(system, Message(role="user", content=f"{n} " * 200)) for n in range(3)]
    firsts = together(engine, chats, 8)
    further = [
        (*chat, Message(role="assistant", content=first.text), Message(role="user", content="Go on."))
        for chat, first in zip(chats, firsts, strict=True)
    ]
    for first, grown in zip(firsts, together(engine, further, 600), strict=True):
        assert grown.usage.tokens_cached >= first.usage.tokens_in - 8


def test_the_next_chat_that_outgrows_its_slot_takes_its_own_along_though_another_begins_alike(engine: Engine) -> None:
    system = Message(role="system", content="Be brief. " * 20)
    chats = [(system, Message(role="user", content=f"{n} " * 200)) for n in range(2)]
    firsts = together(engine, chats, 8)
    for chat, first in zip(chats, firsts, strict=True):
        grown = (*chat, Message(role="assistant", content=first.text), Message(role="user", content="Go on."))
        assert say(engine, grown, 600).usage.tokens_cached >= first.usage.tokens_in - 8
    assert sizes(engine) == [1024, 2048]


def test_a_crowd_that_outgrows_its_slots_is_brought_over_a_few_a_round(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (lane, rounds):
        monkeypatch.setattr(place, "MOVING_S", 0.0)
    system = Message(role="system", content="Be brief. " * 20)
    chats = [(system, Message(role="user", content=f"{n} " * 200)) for n in range(4)]
    firsts = together(engine, chats, 8)
    further = [
        (*chat, Message(role="assistant", content=first.text), Message(role="user", content="Go on."))
        for chat, first in zip(chats, firsts, strict=True)
    ]
    for first, grown in zip(firsts, together(engine, further, 600), strict=True):
        assert grown.usage.tokens_cached >= first.usage.tokens_in - 8 and grown.usage.tokens_out == 600


def test_a_chat_that_grows_twice_takes_all_of_it_along(engine: Engine) -> None:
    first = say(engine, HISTORY, 8)
    grown = say(engine, follow_up(first), 1100)
    again = (*follow_up(first), Message(role="assistant", content=grown.text), Message(role="user", content="More."))
    last = say(engine, again, 1300)
    assert sizes(engine) == [1024, 2048, 4096]
    assert last.usage.tokens_cached > 1000


def test_what_was_taken_along_answers_as_what_was_computed_there(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = say(engine, HISTORY, 8)
    taken = say(engine, follow_up(first), 1200)
    monkeypatch.setattr(Cache, "copy_from", lambda *args: False)
    for one in next(iter(engine._shelf._loaded.values())).lanes._lanes:
        one._slots._planned[:] = one._slots._held[:] = 0
    computed = say(engine, follow_up(first), 1200)
    assert computed.usage.tokens_cached == 0 < taken.usage.tokens_cached
    assert taken.text[:40] == computed.text[:40]  # later on the two may part where two tokens are equally likely


@pytest.mark.parametrize("what", ["save", "restore"])
def test_what_can_not_be_taken_along_is_computed(engine: Engine, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def fail(*args: Any, **fields: Any) -> Any:
        raise BenchError("slot 0 can't be moved")

    first = say(engine, HISTORY, 8)
    monkeypatch.setattr(Context, what, fail)
    grown = say(engine, follow_up(first), 1200)
    assert grown.usage.tokens_cached == 0 and grown.usage.tokens_out == 1200
    engine.measure().result(10)
    for one in next(iter(engine._shelf._loaded.values())).lanes._lanes:
        assert one.is_idle and one._slots.n_free == len(one._slots)
