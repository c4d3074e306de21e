"""A file of memories answers what it was told, is whole after each change, and holds nothing of what was forgotten."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.memory.store import MemoryStore
from gx.core.errors import ModelError, WorkspaceError
from gx.core.ids import digest
from gx.core.memory import Chosen, Draft, Drop, Filter, Kind, Mark, Memory, Put, Query, Source, uid_of
from gx.core.message import Label

MODEL = Chosen("tiny", "ab" * 32, 4)


def vector(*values: float) -> bytes:
    return struct.pack("<4f", *values)


def put(body: str, seq: int = 1, **more: object) -> Put:
    draft = Draft(body=body, **more)  # type: ignore[arg-type]
    memory = Memory(
        uid=uid_of(draft), namespace=draft.namespace, kind=draft.kind, body=body, at=draft.at or 1e9 + seq, seq=seq,
        label=draft.label, source=draft.source,
    )  # fmt: skip
    return Put(memory, digest(body.encode()))


def fill(store: MemoryStore, vectors: dict[str, bytes]) -> None:
    """Give each memory that lacks a vector the one of its text."""
    lacking = [one for one in store.lacking(1000) if one.text in vectors]
    store.put_vectors(MODEL.model, [(one, vectors[one.text]) for one in lacking])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MemoryStore]:
    opened = MemoryStore(tmp_path / "memory.db")
    yield opened
    opened.close()


def bodies(store: MemoryStore, text: str, **more: object) -> list[str]:
    return [hit.memory.body for hit in store.search(Query(text=text, **more), None)]  # type: ignore[arg-type]


def test_words_find_what_has_them_whatever_their_form(store: MemoryStore) -> None:
    store.apply([put("The invoice was paid twice."), put("Cats sleep all day.")], Mark(1, b"h"))
    assert bodies(store, "who pays INVOICES?") == ["The invoice was paid twice."]
    assert bodies(store, "café") == [] and bodies(store, '"*( NEAR') == []
    assert bodies(store, "?!") == []
    assert bodies(store, "the cats or what") == ["Cats sleep all day."] and len(bodies(store, "was the")) == 1


@pytest.mark.parametrize(
    ("text", "found", "not_found"),
    [
        ("東京都の最終フェリーは九時。茶", ["東京", "フェリー", "最終フェリーはいつ?", "時", "茶"], ["京東"]),
        ("新しいiPhoneを買う", ["iphone", "買う"], ["i"]),
        ("서울에서 열리는 회의", ["서울", "열리는"], ["부산"]),
        ("เรือเที่ยวสุดท้ายออกสามทุ่ม", ["เรือ", "สุดท้าย"], ["รถไฟ"]),
        ("हिन्दी में लिखा गया", ["हिन्दी", "लिखा"], ["दूध", "मी"]),
        ("Cafe\u0301 na\u00efve", ["café", "CAFE", "nai\u0308ve"], ["caf"]),
        ("العبّارة الأخيرة", ["الأخيرة"], ["قطار"]),
    ],
)
def test_words_are_found_in_scripts_without_spaces_too(
    store: MemoryStore, text: str, found: list[str], not_found: list[str]
) -> None:
    store.apply([put(text), put("other words entirely 別の話 อื่น")], Mark(1, b"h"))
    assert {question: bodies(store, question, k=1) for question in found} == {question: [text] for question in found}
    assert not [question for question in not_found if bodies(store, question)]


def test_both_halves_find_and_say_what_they_gave(store: MemoryStore) -> None:
    texts = {"alpha one": vector(1, 0, 0, 0), "beta two": vector(0, 1, 0, 0), "gamma three": vector(0.9, 0.1, 0, 0)}
    store.apply([MODEL, *(put(text) for text in texts)], Mark(1, b"h"))
    fill(store, texts)
    hits = store.search(Query(text="alpha two"), (MODEL.model, vector(1, 0, 0, 0)))
    first = hits[0]
    assert first.memory.body == "alpha one"
    assert (first.text_rank, first.vector_rank) == (1, 1) and first.score == pytest.approx(1.0)
    assert first.similarity == pytest.approx(1.0) and first.bm25 is not None and first.bm25 > 0
    by_vector_only = next(hit for hit in hits if hit.memory.body == "gamma three")
    assert by_vector_only.text_rank is None and by_vector_only.by_text == 0.0 and by_vector_only.vector_rank == 2
    near = store.search(Query(text="alpha two", min_similarity=0.5), (MODEL.model, vector(1, 0, 0, 0)))
    assert {hit.memory.body for hit in near if hit.vector_rank} == {"alpha one", "gamma three"}
    assert [hit.memory.body for hit in store.search(Query(text="alpha", min_score=0.9), None)] == ["alpha one"]


@pytest.mark.parametrize("has_vector", [False, True])
def test_filters_hold_in_both_halves(store: MemoryStore, has_vector: bool) -> None:
    one = vector(1, 0, 0, 0)
    made = [
        put("wine is red", 1),
        put("wine is white", 2, namespace="cellar"),
        put("wine was drunk", 3, kind=Kind.episode, at=5.0),
        put("wine list", 4, kind=Kind.chunk, source=Source(path="/docs/wines.md", ordinal=0)),
        put("wine secret", 5, label=Label.shared, source=Source(by="ada")),
    ]
    store.apply([MODEL, *made], Mark(9, b"h"))
    fill(store, {each.memory.body: one for each in made})

    def found(**more: object) -> set[str]:
        query = Query(text="wine", **more)  # type: ignore[arg-type]
        return {hit.memory.body for hit in store.search(query, (MODEL.model, one) if has_vector else None)}

    assert len(found()) == 5
    assert found(namespace="cellar") == {"wine is white"} and found(namespace="cell") == set()
    assert found(kinds=(Kind.episode, Kind.chunk)) == {"wine was drunk", "wine list"}
    assert found(label=Label.shared) == {"wine secret"}
    assert found(source="/docs/wines.md") == found(source="/docs") == found(source="/docs/") == {"wine list"}
    assert found(source="/doc") == set() and found(source="ada") == {"wine secret"}
    assert found(until=10.0) == {"wine was drunk"} and len(found(since=10.0)) == 4
    assert found(upto_seq=2) == {"wine is red", "wine is white"}


def test_a_memory_that_is_written_again_takes_its_place(store: MemoryStore) -> None:
    store.apply([MODEL, put("x y z", 1), put("other", 1)], Mark(1, b"a"))
    fill(store, {"x y z": vector(1, 0, 0, 0)})
    store.apply([put("x y z", 2, label=Label.shared)], Mark(2, b"b"))
    (found,) = [one for one in store.listed(Filter(), limit=9) if one.body == "x y z"]
    assert (found.label, found.seq) == (Label.shared, 1)
    assert store.n_lacking() == 1 and len(bodies(store, "z")) == 1
    hit, *_ = store.search(Query(text="z", label=Label.shared), (MODEL.model, vector(1, 0, 0, 0)))
    assert hit.memory == found and hit.vector_rank == 1
    store.apply([put("x y z", 3, source=Source(heading="H"))], Mark(3, b"c"))  # which is embedded with the text
    assert store.n_lacking() == 2


def test_what_was_applied_is_not_applied_again(store: MemoryStore) -> None:
    store.apply([put("a b")], Mark(4, b"x"))
    store.apply([Drop(put("a b").memory.uid)], Mark(4, b"x"))
    assert bodies(store, "a") == ["a b"] and store.mark == Mark(4, b"x")


def test_a_change_that_fails_leaves_nothing(store: MemoryStore, tmp_path: Path) -> None:
    store.apply([put("a b")], Mark(1, b"x"))
    broken = put("c d")
    with pytest.raises(WorkspaceError):
        store.apply([broken, Put(broken.memory, None)], Mark(2, b"y"))  # type: ignore[arg-type]
    assert store.mark == Mark(1, b"x") and bodies(store, "c") == []
    store.close()
    again = MemoryStore(tmp_path / "memory.db")
    assert again.mark == Mark(1, b"x") and [one.body for one in again.listed(Filter(), limit=5)] == ["a b"]
    again.close()


def test_vectors_of_another_model_or_shape_or_without_numbers_are_refused(store: MemoryStore) -> None:
    store.apply([MODEL, put("a b")], Mark(1, b"x"))
    (lacking,) = store.lacking(5)
    nan, long = vector(float("nan"), 0, 0, 1), vector(1, 0, 0, 0) + vector(1, 0, 0, 0)
    for model, given, code in (
        ("cd" * 32, vector(1, 0, 0, 0), "memory.mixed"),
        (MODEL.model, long, "memory.vector"),
        (MODEL.model, nan, "memory.vector"),
        (MODEL.model, vector(float("inf"), 0, 0, 0), "memory.vector"),
        (MODEL.model, vector(0, 0, 0, 0), "memory.vector"),
    ):
        with pytest.raises(ModelError) as told:
            store.put_vectors(model, [(lacking, given)])
        assert told.value.code == code
        with pytest.raises(ModelError):
            store.search(Query(text="a"), (model, given))
    assert store.n_lacking() == 1


def test_choosing_another_model_voids_all_vectors(store: MemoryStore) -> None:
    store.apply([MODEL, put("a b")], Mark(1, b"x"))
    fill(store, {"a b": vector(1, 0, 0, 0)})
    store.apply([Chosen("other", "cd" * 32, 2)], Mark(2, b"y"))
    assert store.n_lacking() == 1 and store.chosen == Chosen("other", "cd" * 32, 2)
    (lacking,) = store.lacking(1)
    store.put_vectors("cd" * 32, [(lacking, struct.pack("<2f", 1, 0))])
    (hit,) = store.search(Query(text="zzz"), ("cd" * 32, struct.pack("<2f", 1, 1)))
    assert hit.similarity == pytest.approx(0.7071, abs=1e-3)


def test_nothing_of_what_was_forgotten_is_in_the_file(store: MemoryStore, tmp_path: Path) -> None:
    secret, sign = "the passphrase is xylophonequartz", vector(0.123456, 0.654321, 0.111213, 0.987651)
    made = put(secret, source=Source(heading="Zanzibarheading", by="ada"))
    others = [put(f"other memory {n}") for n in range(20)]
    store.apply([MODEL, made, *others], Mark(1, b"x"))
    fill(store, {f"Zanzibarheading\n{secret}": sign, **{o.memory.body: vector(1, 0, 0, 0) for o in others}})
    marks = [b"xylophonequartz", b"Zanzibarheading", b"xylophonequ", sign, b"zanzibarh"]
    store.close()
    path = tmp_path / "memory.db"
    assert all(mark in path.read_bytes() for mark in (marks[0], marks[1], marks[3]))
    again = MemoryStore(path)
    again.apply([Drop(made.memory.uid)], Mark(2, b"y"))
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert [mark for mark in marks if mark in content] == [], file
    assert bodies(again, "xylophonequartz") == [] and len(bodies(again, "other")) == 8
    again.close()


def test_a_file_made_anew_takes_vectors_over_from_the_old_one(store: MemoryStore, tmp_path: Path) -> None:
    texts = {f"text number {n}": vector(1, n, 0, 0) for n in range(200)}
    changes = [MODEL, *(put(text, n) for n, text in enumerate(texts))]
    store.apply(changes, Mark(1, b"x"))
    fill(store, texts)
    other = MemoryStore(tmp_path / "new.db")
    other.apply(changes, Mark(1, b"x"))
    other.take_vectors(store.path)
    question = Query(text="text 7"), (MODEL.model, vector(1, 7, 0, 0))
    assert other.search(*question) == store.search(*question)
    other.apply([put("one more", 300)], Mark(2, b"y"))
    assert [one.text for one in other.lacking(9)] == ["one more"]
    other.close()


def test_lists_go_on_where_a_page_ended(store: MemoryStore) -> None:
    store.apply([put(f"m {n}", seq=n // 3) for n in range(20)], Mark(1, b"x"))
    found, after = [], -1
    while page := store.listed(Filter(), after=after, limit=4):
        found += page
        after = page[-1].seq
    assert [one.body for one in found] == [f"m {n}" for n in range(20)]
    assert [one.body for one in store.listed(Filter(), limit=2, is_newest=True)] == ["m 19", "m 18"]


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough to look like something" * 9, b"SQLite format 3\0"]
)
def test_a_file_that_is_no_memory_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "memory.db").write_bytes(content)
    with pytest.raises(WorkspaceError) as told:
        MemoryStore(tmp_path / "memory.db")
    assert told.value.code == "memory.damaged" and "rebuild" in told.value.hint


def test_any_order_of_changes_gives_what_their_last_ones_say(tmp_path: Path) -> None:
    """Rows, index and vectors agree after any history, and with a file that was made of the last state alone."""
    dice = random.Random(7)
    store = MemoryStore(tmp_path / "memory.db")
    names = [f"word{n} common" for n in range(30)]
    stands: dict[str, Put] = {}
    store.apply([MODEL], Mark(0, b""))
    for seq in range(1, 120):
        name = dice.choice(names)
        one = put(name, seq)
        if one.memory.uid in stands and dice.random() < 0.5:
            store.apply([Drop(one.memory.uid)], Mark(seq, b""))
            del stands[one.memory.uid]
        elif one.memory.uid not in stands:
            stands[one.memory.uid] = one
            store.apply([one], Mark(seq, b""))
        if dice.random() < 0.3:
            fill(store, {each: vector(1, int(each[4:-7]), 0, 0) for each in names})
    fill(store, {each: vector(1, int(each[4:-7]), 0, 0) for each in names})
    fresh = MemoryStore(tmp_path / "fresh.db")
    fresh.apply([MODEL, *sorted(stands.values(), key=lambda one: one.memory.seq)], Mark(200, b""))
    fill(fresh, {each: vector(1, int(each[4:-7]), 0, 0) for each in names})
    for text in ("common", "word7", "word3 word9"):
        asked = Query(text=text, k=40), (MODEL.model, vector(1, 9, 0, 0))
        assert store.search(*asked) == fresh.search(*asked)
    store.close()
    fresh.close()


@pytest.mark.parametrize("package", ["apsw", "sqlite_vec"])
def test_without_its_packages_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(WorkspaceError) as told:
        MemoryStore(tmp_path / "memory.db")
    assert told.value.code == "memory.extra" and "'.[memory]'" in told.value.hint and package in told.value.message
