"""Each text has one vector, the same whatever its company, and what can't be embedded is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.engine.embedding import batches
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
