"""The documents that come with gx are all read, and each question's passage stands in one chunk of one of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.knowledge.chunks import Chunk, chunks
from edge.knowledge.document import Document, Limits
from edge.knowledge.extraction import Extractor
from edge.knowledge.walk import Found, found

RECIPES = Path(__file__).parents[2] / "recipes"
QUESTIONS = [json.loads(line) for line in (RECIPES / "docs-questions.jsonl").read_text().splitlines()]


def by_words(texts: Sequence[str]) -> list[int]:
    return [2 + len(text.split()) for text in texts]


@pytest.fixture(scope="module")
def read() -> dict[str, tuple[Document, list[Chunk]]]:
    made = {}
    with Extractor() as extractor:
        for one in found([RECIPES / "docs"], Limits()):
            assert isinstance(one, Found)
            document = extractor.extract(one.path)
            assert isinstance(document, Document), document
            made[str(Path(one.path).relative_to(RECIPES / "docs"))] = (document, chunks(document, by_words, 150, 25))
    return made


def test_every_document_is_read(read: dict[str, tuple[Document, list[Chunk]]]) -> None:
    assert len(read) >= 30
    formats = {document.format for document, _ in read.values()}
    assert formats == {"text", "markdown", "html", "pdf", "docx", "csv", "jsonl", "python"}


def test_there_are_sixty_questions_that_differ() -> None:
    assert len({one["question"] for one in QUESTIONS}) == len(QUESTIONS) == 60
    assert [one["id"] for one in QUESTIONS] == list(range(1, 61))


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda one: str(one["id"]))
def test_a_passage_is_in_a_chunk_of_its_document_alone(
    read: dict[str, tuple[Document, list[Chunk]]], question: dict[str, str]
) -> None:
    holding = {
        path for path, (_, cut) in read.items() if any(flat(question["passage"]) in flat(one.text) for one in cut)
    }
    assert holding == {question["path"]}
