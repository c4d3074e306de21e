"""Text from elsewhere can't move a terminal's cursor, whatever it holds."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from gx.core.inert import inert, inert_line


@given(st.text())
def test_nothing_is_left_that_a_terminal_would_obey(text: str) -> None:
    found = inert(text)
    assert all(c in "\n\t" or unicodedata.category(c)[0] not in "C" for c in found)
    assert inert(found) == found
    assert len(found) <= len(text)
    assert "\n" not in inert_line(text)


@given(st.text(st.characters(exclude_categories=("C", "Z"))))
def test_what_can_be_read_stays_as_it_is(text: str) -> None:
    assert inert(text) == text


def test_escapes_of_both_kinds_and_turned_text_are_marked() -> None:
    assert inert("\x1b[2J\x9b31m\x07\x00\u202ea") == "�[2J�31m���a"
    assert inert("a\r\nb\u2028c\u00a0d\te") == "a\nb\nc d\te"
