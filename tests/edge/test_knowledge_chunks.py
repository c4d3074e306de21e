"""Chunks are slices of the document, in order, within the limit, and nothing but blanks is lost between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.knowledge.chunks import chunks
from edge.knowledge.document import Document, Draft
from edge.knowledge.readers.code import read_python
from edge.knowledge.readers.plain import read_markdown
from gx.core.errors import UsageError


def by_words(texts: Sequence[str]) -> list[int]:
    return [2 + len(text.split()) for text in texts]


def by_letters(texts: Sequence[str]) -> list[int]:
    return [2 + len(text) for text in texts]


def by_blanks_too(texts: Sequence[str]) -> list[int]:
    """A whole has more tokens than its parts: the blanks between them."""
    return [1 + len(text.split()) + sum(map(str.isspace, text)) for text in texts]


TEXT = st.text(st.sampled_from("ab c\n.!?é　😀#-\t"), max_size=120)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    draft = Draft(10**6)
    for heading, body in draw(st.lists(st.tuples(TEXT, TEXT), max_size=6)):
        draft.head(draw(st.integers(1, 3)), heading)
        draft.add(body)
    draft.add("end")
    return draft.document("/d", "d", draw(st.sampled_from(["text", "csv"])), "")


@settings(max_examples=300, deadline=None)
@given(documents(), st.sampled_from([by_words, by_letters, by_blanks_too]), st.integers(5, 60), st.integers(0, 20))
def test_chunks_hold_all_of_the_text_in_order_and_within_the_limit(
    document: Document, count: object, limit: int, overlap: int
) -> None:
    overlap = min(overlap, (limit - 1) // 2)
    made = chunks(document, count, limit, overlap)  # type: ignore[arg-type]
    covered = [False] * len(document.text)
    for one in made:
        assert one.text == document.text[one.start : one.end] and one.text.strip() == one.text != ""
        assert [one.tokens] == count([one.text]) and one.tokens <= limit  # type: ignore[operator]
        covered[one.start : one.end] = [True] * (one.end - one.start)
    assert all(is_in or letter.isspace() for is_in, letter in zip(covered, document.text, strict=True))
    assert [one.ordinal for one in made] == list(range(len(made)))
    for one, after in itertools.pairwise(made):
        assert one.start < after.start and one.end < after.end


@given(documents())
def test_sections_cover_the_text_from_end_to_end(document: Document) -> None:
    ends = [0, *(section.end for section in document.sections)]
    assert [section.start for section in document.sections] == ends[:-1] and ends[-1] == len(document.text)


def markdown(text: str) -> Document:
    draft = Draft(10**6)
    read_markdown(text.encode(), draft)
    return draft.document("/d.md", "d.md", "markdown", "")


def sentences(word: str, n: int) -> str:
    return " ".join(f"{word.title()} number {k} ends." for k in range(n))


def test_a_cut_is_made_where_a_section_or_a_paragraph_ends() -> None:
    text = f"# Top\n\n## One\n\n{sentences('a', 6)}\n\n{sentences('b', 4)}\n\n## Two\n\n{sentences('c', 5)}\n"
    made = chunks(markdown(text), by_words, 40, 0)
    assert [one.text.split()[-2] for one in made] == ["5", "3", "4"]
    assert [one.headings for one in made] == [("Top", "One"), ("Top", "One"), ("Top", "Two")]
    assert made[0].text.startswith("# Top\n\n## One\n\nA number 0")  # a heading alone says too little to be a chunk


def test_a_section_that_goes_on_repeats_its_last_sentences() -> None:
    made = chunks(markdown(f"# T\n\n{sentences('a', 20)}"), by_words, 34, 9)
    assert len(made) == 4
    for one, after in itertools.pairwise(made):
        assert after.text.startswith("A number") and one.end - after.start in (33, 35)


def test_a_function_is_a_chunk() -> None:
    body = "\n".join(f"        x = {n} + 1" for n in range(8))
    draft = Draft(10**6)
    read_python(f'"""M."""\n\ndef one():\n{body}\n\n\nclass Two:\n    def three(self):\n{body}\n'.encode(), draft)
    made = chunks(draft.document("/m.py", "m.py", "python", ""), by_words, 50, 0)
    assert [one.headings for one in made] == [("one",), ("Two", "three")]


def test_a_limit_that_nothing_fits_into_is_refused() -> None:
    with pytest.raises(UsageError, match="no room for the 1 tokens of 'w'"):
        chunks(markdown("word"), by_words, 2, 0)
    with pytest.raises(UsageError, match="less than half of 10 tokens, got 5"):
        chunks(markdown("word"), by_words, 10, 5)


def test_the_counter_is_asked_a_few_times_for_all_texts_at_once() -> None:
    asked: list[int] = []

    def count(texts: Sequence[str]) -> list[int]:
        asked.append(len(texts))
        return by_words(texts)

    chunks(markdown(sentences("a", 500)), count, 60, 10)
    assert len(asked) == 3 and asked[1] == 500
