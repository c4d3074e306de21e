"""A model that can't be used is refused in words, and one that can is read right."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from edge.engine.llama import DEFAULT_CONTEXT_TOKENS, Context, Fed, Model
from edge.engine.slots import Copy, Cut
from gx.core.errors import BenchError, GxError, ModelError
from gx.core.message import Message
from tests.tiny_model import write_tiny_model

HELLO = (Message(role="system", content="Be brief."), Message(role="user", content="Hello, Wörld ✂"))


@pytest.fixture(scope="module")
def model(tiny: str) -> Model:
    return Model("digest", tiny)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.gguf can't be read: No such file"):
        Model("d", str(tmp_path / "gone.gguf"))


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be read: Is a directory"):
        Model("d", str(tmp_path))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "isn't a GGUF file: it is empty"),
        (b"<!DOCTYPE html><html>Not found</html>", "isn't a GGUF file: it begins with b'<!DO'"),
        (b"GGUF\x03\0\0\0", "cut short: it ends within its header"),
        (b"GGUF\x09\0\0\0" + bytes(64), "is GGUF version 9; versions 2 and 3 can be read"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 64, "can't be loaded|cut short or damaged"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=told):
        Model("d", str(path))


@pytest.mark.parametrize("kept", [100, 50_000, 2_000_000, -100])
def test_a_truncated_model_is_refused_wherever_it_ends(tiny: str, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "half.gguf"
    path.write_bytes(Path(tiny).read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"half\.gguf is cut short or damaged( \(\d+ bytes\))?: \w+") as caught:
        Model("d", str(path))
    assert "fetch the file again" in caught.value.hint


def test_a_prompt_is_the_models_own_template(model: Model) -> None:
    assert model.render(HELLO) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello, Wörld ✂<|im_end|>\n<|im_start|>assistant\n"
    )
    tokens = model.encode(HELLO)
    assert model.card(512).has_chat_template
    assert b"".join(model.vocab.piece(int(t)) for t in tokens).decode() == (
        "system\nBe brief.\nuser\nHello, Wörld ✂\nassistant\n"  # a control token has no text
    )


def test_a_model_without_a_template_gets_chatml(tmp_path: Path) -> None:
    model = Model("d", str(write_tiny_model(tmp_path / "bare.gguf", template="")))
    assert not model.card(512).has_chat_template
    assert model.render(HELLO).endswith("<|im_start|>user\nHello, Wörld ✂<|im_end|>\n<|im_start|>assistant\n")


def test_a_template_may_refuse_and_knows_no_date(tmp_path: Path) -> None:
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    source = refusal + "{{ strftime_now('%Y') }}"
    model = Model("d", str(write_tiny_model(tmp_path / "picky.gguf", template=source)))
    with pytest.raises(GxError, match="no system role") as caught:
        model.render(HELLO)
    assert caught.value.code == "template"
    assert model.render(HELLO[1:]) == "2024"


def test_the_context_is_never_longer_than_the_training(model: Model) -> None:
    assert model.context_tokens(None) == 512 < DEFAULT_CONTEXT_TOKENS
    assert model.context_tokens(300) == 300
    assert model.context_tokens(4096) == 512


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    context = Context(model, slots=3, slot_tokens=256, threads=1)
    yield context
    context.close()


def fed(slot: int, start: int, *tokens: int, wanted: Literal["none", "last", "all"] = "last") -> Fed:
    return Fed(slot, start, np.array(tokens, np.int32), wanted)


def test_many_sequences_in_one_call_give_the_rows_that_each_gives_alone(model: Model, context: Context) -> None:
    together = context.decode([fed(0, 0, 5, 6, 7), fed(1, 0, 9, 8, wanted="all"), fed(2, 0, 4, wanted="none")]).copy()
    assert together.shape == (3, model.vocab.n_tokens)
    context.move([Cut(slot, 0) for slot in range(3)])
    alone = [context.decode([fed(0, 0, 5, 6, 7)]).copy(), context.decode([fed(1, 0, 9, 8, wanted="all")]).copy()]
    assert np.allclose(together, np.concatenate(alone), atol=1e-3)


def test_a_copied_beginning_is_worth_the_computed_one(context: Context) -> None:
    context.decode([fed(0, 0, 5, 6, 7, 8, 9)])
    context.move([Copy(source=0, target=2, n_tokens=3)])
    copied = context.decode([fed(2, 3, 11)]).copy()
    computed = context.decode([fed(1, 0, 5, 6, 7, 11)])
    assert np.allclose(copied, computed, atol=1e-3)


def test_a_cut_sequence_goes_on_in_another_way(context: Context) -> None:
    context.decode([fed(0, 0, 5, 6, 7, 8, 9)])
    context.move([Cut(0, 2)])
    cut = context.decode([fed(0, 2, 11)]).copy()
    assert np.allclose(cut, context.decode([fed(1, 0, 5, 6, 11)]), atol=1e-3)


def test_what_llama_cpp_refuses_is_an_error_with_its_reason(context: Context) -> None:
    context.decode([fed(0, 0, 5, 6)])
    with pytest.raises(BenchError, match="could not decode 1 tokens"):
        context.decode([fed(0, 7, 1)])  # what is between isn't there


def test_openmp_does_not_starve_its_neighbours() -> None:
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
