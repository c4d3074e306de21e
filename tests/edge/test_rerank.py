"""A reranker's score of a pair is what its file says of it, alone and in company; what can't be scored is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gguf import PoolingType

from edge.engine.engine import Engine, Request
from edge.header import read_header
from gx.core.errors import BenchError, GxError, ModelError
from gx.core.message import Failure, Message
from tests.tiny_bert import write_tiny_bert
from tests.tiny_reranker import expected, write_counting_reranker

TEMPLATE = "q {query} d {document}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rerank")


@pytest.fixture(scope="module")
def engine(folder: Path, tiny: str) -> Iterator[Engine]:
    engine = Engine(threads=1, slots=2)
    engine.register("z", str(write_counting_reranker(folder / "z.gguf")))
    engine.register("template", str(write_counting_reranker(folder / "template.gguf", template=TEMPLATE)))
    engine.register("headless", str(write_counting_reranker(folder / "headless.gguf", has_head=False)))
    engine.register("random", str(write_tiny_bert(folder / "random.gguf", pooling=PoolingType.RANK)))
    engine.register("bert", str(write_tiny_bert(folder / "bert.gguf")))
    engine.register("tiny", tiny)
    yield engine
    engine.close()


def test_a_pair_is_scored_as_the_vocabularys_marks_make_it_one_text(engine: Engine) -> None:
    scores = engine.rank("z", "az", ["zz", "b", "", "z[SEP]"]).result(30)
    # [CLS] a z [SEP] z z; marks that are written out in a text are letters: none of them is one
    assert scores[:, 0] == pytest.approx([expected(3, 6), expected(1, 5), expected(1, 4), expected(2, 10)], abs=0.01)


def test_a_pair_is_scored_as_the_files_template_makes_it_one_text(engine: Engine) -> None:
    scores = engine.rank("template", "{document}", ["zz"]).result(30)
    # "q {document} d zz": the places of the template are filled once, whatever the texts say
    assert scores[0, 0] == pytest.approx(expected(2, len("q") + len("{document}") + len("dzz")), abs=0.01)


def test_a_pair_has_the_same_score_alone_and_in_the_company_of_many(engine: Engine) -> None:
    passages = [f"passage {number} " * (number % 30 + 1) for number in range(150)]
    together = engine.rank("random", "what is this", passages).result(60)
    assert together.shape == (150, 1) and len(np.unique(together.round(5))) > 100
    for number in (0, 71, 149):
        alone = engine.rank("random", "what is this", [passages[number]]).result(30)
        assert alone[0, 0] == pytest.approx(together[number, 0], abs=2e-3)


def test_no_passages_have_no_scores(engine: Engine) -> None:
    assert engine.rank("z", "a", []).result(30).shape == (0, 1)


def test_a_passage_that_is_too_long_has_the_score_of_its_best_part_and_the_others_their_own(engine: Engine) -> None:
    long = "b" * 800 + " " + "z" * 100
    scores = engine.rank("z", "a", ["z", long, "b" * 600, "", long[:100]]).result(30)[:, 0]
    halves = engine.rank("z", "a", [long[: len(long) // 2], long[len(long) // 2 :]]).result(30)[:, 0]
    assert scores[1] == pytest.approx(halves.max(), abs=0.01) and halves[1] > halves[0]
    assert scores[[0, 3]] == pytest.approx([expected(1, 4), expected(0, 3)], abs=0.01)
    assert scores[[2, 4]] == pytest.approx([expected(0, 9)] * 2, abs=0.01)


def test_a_question_that_leaves_no_room_for_a_passage_is_refused_with_its_figures(engine: Engine) -> None:
    with pytest.raises(GxError, match=r"question is too long to rank passages by: 502 tokens, .* takes 512") as caught:
        engine.rank("z", "a" * 500, ["b"])
    assert caught.value.code == "question" and "`query`" in caught.value.hint


@pytest.mark.parametrize(
    "model, told",
    [("bert", "is no reranker"), ("tiny", "is no reranker"), ("headless", "no weights that make a score")],
)
def test_what_is_no_reranker_scores_nothing(engine: Engine, model: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        engine.rank(model, "a", ["b"])


def test_a_reranker_neither_embeds_nor_writes(engine: Engine) -> None:
    with pytest.raises(ModelError, match="is a reranker: it makes scores"):
        engine.embed("z", ["a"])
    failure = engine.submit(Request(model="z", messages=(Message(role="user", content="Hi"),))).result(30)
    assert isinstance(failure, Failure) and "is a reranker: it can't write" in failure.message


def test_a_ranking_that_nobody_waits_for_ends(engine: Engine) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(BenchError, match="cancelled"):
        engine.rank("z", "a", ["b"] * 500, cancelled=cancelled).result(30)


def test_a_header_says_what_a_model_is_for(folder: Path, engine: Engine, tiny: str) -> None:
    files: dict[str, Path | str] = {"reranker": folder / "z.gguf", "embedding": folder / "bert.gguf", "chat": tiny}
    for kind, file in files.items():
        header = read_header(file)
        assert header is not None and header.kind() == kind
