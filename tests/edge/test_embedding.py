"""Each text has one vector, the same whatever its company, and what can't be embedded is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.engine.embedding import Embedding, advance, batches
from edge.engine.engine import Completion, Engine, Request
from gx.core.errors import BenchError, GxError, ModelError
from gx.core.message import Failure, Message, Sampling
from tests.tiny_bert import write_tiny_bert

TEXTS = ["hello world", "a", "the quick brown fox jumps over the lazy dog " * 8, "hello world", "zebra 42", ""]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("bert")
    engine = Engine(threads=1, slots=2)
    engine.register("bert", str(write_tiny_bert(folder / "bert.gguf")))
    engine.register("tiny", tiny)
    yield engine
    engine.close()


def test_a_text_has_the_same_vector_alone_and_in_company(engine: Engine) -> None:
    together = engine.embed("bert", TEXTS).result(30)
    alone = np.concatenate([engine.embed("bert", [text]).result(30) for text in TEXTS])
    assert together.shape == (len(TEXTS), 64) and together.dtype == np.float32
    assert np.allclose(together, alone, atol=1e-4)
    assert np.allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    assert np.allclose(together[0], together[3], atol=1e-5) and not np.allclose(together[0], together[4], atol=1e-2)


def test_many_texts_take_many_batches(engine: Engine) -> None:
    texts = [f"text {number} " * (number % 40 + 1) for number in range(300)]
    vectors = engine.embed("bert", texts).result(60)
    assert np.allclose(vectors[250], engine.embed("bert", [texts[250]]).result(30)[0], atol=1e-4)


def test_no_texts_have_no_vectors(engine: Engine) -> None:
    assert engine.embed("bert", []).result(30).shape == (0, 64)


def test_answers_go_on_while_texts_are_embedded(engine: Engine) -> None:
    ask = Request(model="tiny", messages=(Message(role="user", content="Hi"),), sampling=Sampling(max_tokens=30))
    writing = engine.submit(ask)
    vectors = engine.embed("bert", [f"text {number}" for number in range(200)])
    assert isinstance(writing.result(60), Completion) and vectors.result(60).shape == (200, 64)


def test_few_texts_do_not_wait_for_many(engine: Engine) -> None:
    many = engine.embed("bert", [f"text {number} " * 40 for number in range(400)])
    few = engine.embed("bert", ["a question"])
    assert few.result(60).shape == (1, 64) and not many.done()
    assert many.result(60).shape == (400, 64)


def test_requests_that_wait_share_a_batch(engine: Engine) -> None:
    engine.embed("bert", ["warm"]).result(30)
    alone = [engine.embed("bert", [text]).result(30) for text in TEXTS]
    blocked = engine.embed("bert", [f"text {number} " * 60 for number in range(60)])  # the others wait meanwhile
    together = [engine.embed("bert", [text]) for text in TEXTS]
    none, cancelled = engine.embed("bert", []), threading.Event()
    cancelled.set()
    left = engine.embed("bert", ["a"], cancelled=cancelled)
    for one, other in zip(alone, together, strict=True):
        assert np.allclose(one, other.result(60), atol=1e-4)
    assert none.result(60).shape == (0, 64) and blocked.result(60).shape == (60, 64)
    with pytest.raises(BenchError, match="was cancelled"):
        left.result(60)


class Counting:
    """An encoder whose vector of a text is its length, and which tells its batches."""

    batch_texts, dimensions = 4, 1

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def encode(self, texts: list[list[int]]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        self.batches.append([len(text) for text in texts])
        return np.array([[len(text)] for text in texts], np.float32)


@given(st.lists(st.lists(st.integers(1, 600), max_size=12), min_size=1, max_size=6))
def test_a_batch_is_of_the_first_job_and_of_whoever_fits_in(lengths: list[list[int]]) -> None:
    encoder: Any = Counting()
    jobs = [
        Embedding([[0] * n for n in one], is_normalized=False, cancelled=threading.Event()) for one in lengths
    ]  # fmt: skip
    while left := [job for job in jobs if not job.future.done()]:
        calls = len(encoder.batches)
        assert left[0] in advance(left, encoder) and len(encoder.batches) <= calls + 1
    for job, one in zip(jobs, lengths, strict=True):
        assert job.future.result()[:, 0].tolist() == one
    for batch in encoder.batches:
        assert len(batch) <= 4 and (len(batch) == 1 or sum(batch) <= 512)


def test_short_requests_are_computed_in_one_pass() -> None:
    encoder: Any = Counting()
    jobs = [Embedding([[0] * n], is_normalized=False, cancelled=threading.Event()) for n in (500, 9, 400, 3)]
    assert advance(jobs, encoder) == [jobs[0], jobs[1], jobs[3]] and encoder.batches == [[500, 9, 3]]
    assert advance(jobs[2:3], encoder) == [jobs[2]]


def test_a_text_that_is_too_long_is_refused_with_its_figures(engine: Engine) -> None:
    with pytest.raises(GxError, match=r"text 1 is too long to embed: \d+ tokens, and the model takes 512") as caught:
        engine.embed("bert", ["short", "a b c d " * 200])
    assert caught.value.code == "context"


def test_a_chat_model_embeds_nothing_and_an_embedding_model_writes_nothing(engine: Engine) -> None:
    with pytest.raises(ModelError, match="no embedding model"):
        engine.embed("tiny", ["a"])
    failure = engine.submit(Request(model="bert", messages=(Message(role="user", content="Hi"),))).result(30)
    assert isinstance(failure, Failure) and "embedding model" in failure.message and not failure.retryable


def test_a_cancelled_embedding_ends(engine: Engine) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(BenchError, match="was cancelled"):
        engine.embed("bert", ["a"] * 500, cancelled=cancelled).result(30)
    assert engine.embed("bert", ["a"]).result(30).shape == (1, 64)


@given(st.lists(st.integers(1, 600), max_size=200))
def test_every_text_is_in_one_batch_that_fits(lengths: list[int]) -> None:
    dealt = batches(lengths, batch_tokens=512, batch_texts=64)
    assert sorted(index for batch in dealt for index in batch) == list(range(len(lengths)))
    for batch in dealt:
        assert len(batch) <= 64 and (len(batch) == 1 or sum(lengths[i] for i in batch) <= 512)
    flat = [lengths[i] for batch in dealt for i in batch]
    assert flat == sorted(flat)


class Fragile(Counting):
    """It can't encode texts of 7 tokens, and what it makes of some of 8 is no number for any of its batch."""

    def encode(self, texts: list[list[int]]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        vectors = super().encode(texts)
        if 7 in vectors:
            raise BenchError("llama.cpp could not encode")
        return vectors * np.float32(np.nan) if 8 in vectors else vectors


@pytest.mark.parametrize("bad", [7, 8])
def test_nobody_pays_for_anothers_text(bad: int) -> None:
    encoder: Any = Fragile()
    jobs = [Embedding([[0] * n], is_normalized=False, cancelled=threading.Event()) for n in (3, bad, 5)]
    assert advance(jobs, encoder) == jobs[:1] and jobs[0].future.result().tolist() == [[3.0]]
    if bad == 7:
        with pytest.raises(BenchError, match="could not encode"):
            advance(jobs[1:], encoder)
    else:
        assert advance(jobs[1:], encoder) == jobs[1:2] and isinstance(jobs[1].future.exception(), ModelError)
    assert advance(jobs[2:], encoder) == jobs[2:] and jobs[2].future.result().tolist() == [[5.0]]


def test_who_wants_no_vectors_is_not_in_the_way_of_others() -> None:
    encoder: Any = Fragile()
    none, other = (Embedding(texts, is_normalized=False, cancelled=threading.Event()) for texts in ([], [[0] * 7]))
    assert advance([none, other], encoder) == [none] and none.future.result().shape == (0, 1)
    none.fail(BenchError("too late"))
    assert none.future.exception() is None and not other.future.done()
