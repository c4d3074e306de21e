"""What nobody should send, and what some file should not hold: each a clear error or a right answer."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.engine.engine import Completion, Engine, Request
from gx.core.errors import ModelError
from gx.core.message import Failure, Message, Sampling
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def engine(tiny: str) -> Iterator[Engine]:
    engine = Engine(threads=1, slots=4)
    engine.register("tiny", tiny)
    yield engine
    engine.close()


def ask(text: str, model: str = "tiny", **sampling: float) -> Request:
    drawing = Sampling(**{"max_tokens": 40, **sampling})  # type: ignore[arg-type]
    return Request(model=model, messages=(Message(role="user", content=text),), sampling=drawing)


def test_a_prompt_of_a_hundred_thousand_tokens_is_refused_and_its_neighbours_go_on(engine: Engine) -> None:
    neighbours = [engine.submit(ask(f"Hi {number}")) for number in range(3)]
    failure = engine.submit(ask("word " * 100_000)).result(60)
    assert isinstance(failure, Failure) and failure.code == "context" and not failure.retryable
    assert failure.usage.tokens_in >= 100_000 and f"{failure.usage.tokens_in} prompt tokens" in failure.message
    assert all(isinstance(future.result(60), Completion) for future in neighbours)


def test_bytes_that_are_no_text_come_out_replaced(engine: Engine) -> None:
    """A model of random weights, drawn hot, writes half characters and bytes that begin none."""
    futures = [engine.submit(ask("Hi", temperature=2.0, seed=seed)) for seed in range(60)]
    texts = [result.text for future in futures if isinstance(result := future.result(60), Completion)]
    assert len(texts) == 60 and any("\ufffd" in text for text in texts)
    assert all(text.encode().decode() == text for text in texts)


def test_a_model_without_a_template_answers(engine: Engine, tmp_path: Path) -> None:
    engine.register("bare", str(write_tiny_model(tmp_path / "bare.gguf", template="")))
    result = engine.submit(ask("Hi", "bare")).result(60)
    assert isinstance(result, Completion) and result.usage.tokens_in > 5


HUGE = struct.pack("<Q", 1 << 60)


def declared(tiny: str, field: str, offset: int, value: bytes = HUGE) -> bytes:
    """The tiny model's file, in which what comes so many bytes after the name of a field is another number."""
    content = bytearray(Path(tiny).read_bytes())
    start = content.index(field.encode()) + len(field) + offset
    content[start : start + len(value)] = value
    return bytes(content)


@pytest.mark.parametrize(
    ("field", "offset"),
    [
        ("GGUF", 4),  # the number of tensors
        ("GGUF", 12),  # the number of metadata fields
        ("GGUF", 20),  # the length of the first field's name
        ("tokenizer.ggml.tokens", 8),  # the length of an array
        ("tokenizer.ggml.tokens", 16),  # the length of a string in it
        ("token_embd.weight", 12),  # a tensor's dimension
        ("token_embd.weight", 24),  # where its numbers lie
    ],
)
def test_a_file_that_declares_a_huge_size_is_refused(
    engine: Engine, tiny: str, tmp_path: Path, field: str, offset: int
) -> None:
    path = tmp_path / "huge.gguf"
    path.write_bytes(declared(tiny, field, offset))
    engine.register("huge", str(path))
    failure = engine.submit(ask("Hi", "huge")).result(60)
    assert isinstance(failure, Failure) and failure.code == "model" and not failure.retryable
    assert "huge.gguf" in failure.message and "damaged" in failure.message
    assert isinstance(engine.submit(ask("Hi")).result(60), Completion)


def test_layers_that_would_end_the_process_are_refused_before(engine: Engine, tiny: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.gguf"
    path.write_bytes(declared(tiny, "llama.block_count", 4, b"\xff\xff\xff\x7f"))
    engine.register("deep", str(path))
    with pytest.raises(ModelError, match="block_count is 2147483647, and 512 is the most"):
        engine.describe("deep")


def test_a_training_of_four_milliard_tokens_makes_no_context_of_as_many(
    engine: Engine, tiny: str, tmp_path: Path
) -> None:
    path = tmp_path / "long.gguf"
    path.write_bytes(declared(tiny, "llama.context_length", 4, b"\xff" * 4))
    engine.register("long", str(path))
    assert isinstance(engine.submit(ask("Hi", "long")).result(60), Completion)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"GGUF"])
def test_a_file_that_is_no_model_is_a_failure_with_its_name(engine: Engine, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.gguf"
    path.write_bytes(content)
    engine.register("page", str(path))
    failure = engine.submit(ask("Hi", "page")).result(60)
    assert isinstance(failure, Failure) and failure.code == "model" and "page.gguf" in failure.message
