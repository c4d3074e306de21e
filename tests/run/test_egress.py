"""What leaves is said by name and by number, and what is private can't be said to leave."""

from __future__ import annotations

import msgspec
import pytest

from gx.core.ids import digest
from gx.core.message import Message, Turn
from gx.run.egress import PrivateError, PrivateTurn, leaving

TURN = Turn(run="r", task="t", attempt=2, model="m" * 64, messages=(Message(role="user", content="Hello"),))


def test_what_leaves_is_the_bytes_of_the_turn_and_the_names_of_its_fields() -> None:
    packed = msgspec.msgpack.encode(TURN)
    made = leaving(TURN, ("item.text",), run="r", task="t", attempt=2, to="modal:L4")
    assert (made.bytes, made.digest) == (len(packed), digest(packed))
    assert (made.run, made.task, made.attempt, made.to, made.fields) == ("r", "t", 2, "modal:L4", ("item.text",))
    assert b"Hello" not in msgspec.json.encode(made)


def test_a_private_turn_never_leaves() -> None:
    private = PrivateTurn.of(TURN)
    for turn in (private, private.for_attempt(3, 9), msgspec.structs.replace(private, sample=1)):
        with pytest.raises(PrivateError, match="task t is private"):
            leaving(turn, (), run="r", task="t", attempt=2, to="modal:L4")


def test_a_private_turn_has_the_key_and_the_bytes_of_any_other() -> None:
    private = PrivateTurn.of(TURN)
    assert private.key() == TURN.key()
    assert msgspec.msgpack.encode(private) == msgspec.msgpack.encode(TURN)
