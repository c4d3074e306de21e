"""Text comes in whole characters, and never past a stop string."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engine.text import TextStream


def cut(raw: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(at), len(raw)]
    return [raw[a:b] for a, b in pairwise(edges)]


@settings(deadline=None)
@given(st.text(alphabet="abé✂", max_size=30), st.lists(st.integers(0, 60)), st.sampled_from(["ab", "aab", "é✂", "b"]))
def test_the_text_ends_before_the_first_stop_string_wherever_the_tokens_are_cut(
    text: str, at: list[int], stop: str
) -> None:
    stream = TextStream([stop])
    given_out = "".join(stream.push(piece) for piece in cut(text.encode(), at)) + stream.close()
    assert given_out == stream.text == text.split(stop)[0]
    assert stream.is_stopped == (stop in text)


def test_a_stop_string_may_come_a_byte_at_a_time() -> None:
    stream = TextStream(["é✂b"])
    pieces = [stream.push(bytes([byte])) for byte in "aé✂é✂b, and so on".encode()]
    assert "".join(pieces) == stream.text == "aé✂"
    assert stream.is_stopped


def test_the_earliest_of_several_stop_strings_counts() -> None:
    stream = TextStream(["later", "end", ""])
    assert stream.push(b"the end, later") == "the "
    assert stream.push(b"more") == "" and stream.text == "the "


def test_half_a_character_waits_for_its_other_half() -> None:
    stream = TextStream()
    assert stream.push("é".encode()[:1]) == ""
    assert stream.push("é".encode()[1:]) == "é"


def test_bytes_that_are_no_text_are_replaced() -> None:
    stream = TextStream()
    assert stream.push(b"a\xffb") == "a\ufffdb"
    assert stream.push(b"\xe2\x9c") == "" and stream.close() == "\ufffd"
