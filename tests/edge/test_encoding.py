"""What a choice is split into is the same however much of the prompt is encoded with each option."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engine.encoding import _split, split
from edge.engine.engine import Engine, Request
from edge.engine.llama import Model
from gx.core.message import Failure, Message, Sampling

WORDS = [
    "hello",
    " ",
    "  ",
    "\n",
    "\n\n",
    "a",
    "é",
    "😀",
    "don't",
    "123",
    "\t",
    "<|",
    "im_",
    "|>",
    "ing",
    ".",
    '{"a": "',
    "▁",
]
NAMES = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
texts = st.lists(st.sampled_from(WORDS + NAMES) | st.text(max_size=3), max_size=40).map("".join)
endings = st.lists(st.sampled_from(WORDS + NAMES) | st.text(max_size=3), min_size=1, max_size=3).map("".join)


@pytest.fixture(scope="module")
def model(tiny: str) -> Iterator[Model]:
    model = Model("m", tiny)
    yield model
    model.close()


@settings(deadline=None, max_examples=400)
@given(texts, st.lists(endings.filter(bool), min_size=1, max_size=5, unique=True))
def test_a_part_and_the_whole_are_split_alike(model: Model, text: str, options: list[str]) -> None:
    prompt, own = split(model, text, options)
    whole, all_ = _split(model.vocab.tokenize(text), [model.vocab.tokenize(text + option) for option in options])
    assert prompt.tolist() == whole.tolist() and own == all_


def test_of_a_chat_only_the_last_part_is_encoded_with_each_option(model: Model) -> None:
    text = model.render([Message(role="user", content="word " * 200)]) + '{"kind": "'
    tokens = model.vocab.tokenize(text)
    place, part = model.vocab.last_part(text, tokens)
    assert (
        part == '<|im_start|>assistant\n{"kind": "' and tokens[place:].tolist() == model.vocab.tokenize(part).tolist()
    )
    assert model.vocab.last_part("no control token", model.vocab.tokenize("no control token")) == (
        0,
        "no control token",
    )


def test_many_options_behind_a_long_prompt_are_soon_encoded(model: Model) -> None:
    text = model.render([Message(role="user", content="word " * 6000)])
    began_s = time.perf_counter()
    model.vocab.tokenize(text)
    once_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    split(model, text, [f"option {number}" for number in range(100)])
    assert time.perf_counter() - began_s < 15 * once_s + 0.02  # and not a hundred times


def test_a_vocabulary_without_an_end_can_not_weigh_whole_answers(tiny: str) -> None:
    engine = Engine(threads=1, slots=1)
    try:
        engine.register("m", tiny)
        with engine._shelf.borrow("m") as loaded:
            loaded.model.vocab.end_token = -1  # llama.cpp's word for none
            for are_whole in (False, True):
                request = Request(
                    model="m",
                    messages=(Message(role="user", content="Hi"),),
                    sampling=Sampling(),
                    options=("yes", "no"),
                    are_whole=are_whole,
                )
                result = engine.submit(request).result(30)
                assert isinstance(result, Failure) == are_whole
            assert isinstance(result, Failure) and result.code == "choice"
            assert "has no token that ends an answer" in result.message
    finally:
        engine.close()
