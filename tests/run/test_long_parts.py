"""How a text is cut into parts, which of them are nearest to a question, and how those that are kept are put back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gx.core.event import Kept
from gx.core.message import Message
from gx.flow.withheld import Withheld, field
from gx.run.long import dialogue
from gx.run.long.cutting import parts
from gx.run.long.ranking import by_words, ranked
from gx.run.long.texts import at, kept_of, named, replaced, shown, swaps, texts

TEXT = st.text(alphabet=st.sampled_from("ab .\n#é。"), max_size=400)


@given(text=TEXT, size=st.integers(2, 60))
def test_the_parts_of_a_text_are_all_of_it_in_order_and_none_is_too_long(text: str, size: int) -> None:
    spans = parts(text, size)
    assert "".join(text[start:stop] for start, stop in spans) == text
    assert all(0 < stop - start <= size for start, stop in spans)
    assert all(stop - start >= size // 2 for start, stop in spans[:-1])


def test_a_cut_is_made_before_a_heading_sooner_than_within_a_paragraph() -> None:
    text = "One is here. It goes on.\n# Two\nTwo is here, and goes on and on for a while."
    assert next(text[start:stop] for start, stop in parts(text, 40)) == "One is here. It goes on.\n"


def test_the_part_that_has_the_rare_words_of_a_question_is_the_nearest() -> None:
    bodies = ["the weather is fine", "the capital is Paris", "the the the", "nothing"]
    assert ranked("What is the capital?", bodies, None)[0] == 1
    assert by_words("What is the capital?", bodies)[3] == 0.0
    assert ranked("", bodies, None) == [0, 1, 2, 3]


def test_meaning_finds_a_part_that_has_no_word_of_the_question() -> None:
    bodies = ["a feline sat", "stocks fell", "rain comes"]
    assert ranked("where is the cat?", bodies, [0.9, 0.1, 0.3])[0] == 0


@given(text=TEXT, size=st.integers(2, 60), seed=st.sets(st.integers(0, 200)))
def test_what_is_kept_is_told_part_by_part(text: str, size: int, seed: set[int]) -> None:
    spans = parts(text, size)
    chosen = {number for number in seed if number < len(spans)}
    kept = kept_of(("item", "text"), spans, chosen)
    assert kept.of - sum(kept.left_out) == len(chosen)
    assert "".join(text[a:b] for a, b in kept.spans) == "".join(text[slice(*spans[n])] for n in sorted(chosen))
    assert (shown(text, kept).count("left out …]")) == sum(n > 0 for n in kept.left_out)


def test_a_mark_stands_wherever_parts_are_left_out() -> None:
    kept = kept_of(("item",), [(0, 2), (2, 4), (4, 6), (6, 8)], {1, 2})
    assert shown("aabbccdd", kept) == "[… 1 of 4 parts left out …]\nbbcc\n[… 1 of 4 parts left out …]"


def test_the_longest_texts_of_a_prompt_are_found_once_wherever_they_stand() -> None:
    row = {"id": "1", "text": "x" * 30, "more": {"note": "y" * 20}}
    names = {"item": row, "input": row, "items": ["z" * 40], "params": {"short": "s"}, "memories": ["m" * 99]}
    found = [(named(place), len(text)) for place, text in texts(names, 10)]
    assert found == [("items[0]", 40), ("item.text", 30), ("item.more.note", 20)]
    assert [place for place, _ in texts(names, 10, "text")] == [("item", "text")]
    assert [place for place, _ in texts(names, 10, "item.more.note")] == [("item", "more", "note")]
    assert texts(names, 10, "other") == []


def test_a_text_is_replaced_in_what_may_be_known_of_a_row_too() -> None:
    row = {"text": "long text", "mail": "a@b"}
    by = swaps({"item": row}, [Kept(field=("item", "text"), spans=((0, 4),), left_out=(0, 1), of=2)], lambda refs: [])
    known = replaced({"item": Withheld("item", {"text": "long text"}), "input": row}, by)
    assert at(known, ("input", "text")) == field(known["item"], "text", lambda: None)
    assert at(known, ("input", "text")) == "long\n[… 1 of 2 parts left out …]"


def test_a_dialogue_begins_with_its_opening_and_a_users_message_and_ends_as_it_ended() -> None:
    roles = ["system", "user", "assistant", "user", "assistant", "user"]
    chat = tuple(Message(role=role, content=str(n)) for n, role in enumerate(roles))  # type: ignore[arg-type]
    assert dialogue.beginnings(chat, ()) == [2, 4]
    assert [m.content for m in dialogue.without(chat, 2, ())] == ["0", "3", "4", "5"]
    assert dialogue.beginnings(chat[:2], ()) == []


def test_the_examples_of_a_persona_are_no_turns_of_the_dialogue() -> None:
    roles = ["system", "user", "assistant", "user", "assistant", "user"]
    chat = tuple(Message(role=role, content=str(n)) for n, role in enumerate(roles))  # type: ignore[arg-type]
    assert dialogue.beginnings(chat, chat[:3]) == [2]
    assert [m.content for m in dialogue.without(chat, 2, chat[:3])] == ["0", "1", "2", "5"]
