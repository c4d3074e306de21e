"""Equal turns have equal keys, and a new version of gx still finds what an older one answered."""

from __future__ import annotations

from typing import Any

import msgspec

from gx.core.message import Message, Sampling, Turn


def turn(**sampling: Any) -> Turn:
    messages = (Message(role="user", content="Hi"),)
    return Turn(run="r", task="t", attempt=1, model="m", messages=messages, sampling=Sampling(**sampling))


def test_keys_stay_what_they_were() -> None:
    assert turn().key() == "6da8259e39343e6dadfd4ed61fc40e1f"
    used = {"temperature": 0.5, "logit_bias": {"7": 1.0, "10": 2.0}, "stop": ("x",)}
    assert turn(**used).key() == "a5eb78c697cf67fe24ecc1181981fdce"


def test_a_grammar_makes_another_turn() -> None:
    one, other = (msgspec.structs.replace(turn(), grammar=text) for text in ('start: "a"', 'start: "b"'))
    assert len({turn().key(), one.key(), other.key()}) == 3


def test_a_key_covers_every_setting() -> None:
    others: dict[str, Any] = {
        "temperature": 1.0, "top_k": 3, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.5, "repetition_penalty": 1.1,
        "presence_penalty": 0.1, "frequency_penalty": 0.1, "logit_bias": {"1": 1.0}, "seed": 1, "max_tokens": 9,
        "stop": ("x",), "logprobs": 0,
    }  # fmt: skip
    assert set(others) == {field.name for field in msgspec.structs.fields(Sampling)}
    keys = {turn(**{name: value}).key() for name, value in others.items()}
    assert len({turn().key(), turn(logprobs=5).key(), *keys}) == len(others) + 2


def test_a_default_that_is_written_out_is_the_default() -> None:
    assert turn(temperature=float("0"), stop=tuple(list[str]()), logprobs=None).key() == turn().key()
