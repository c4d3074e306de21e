"""A node remembers, finds and forgets, from the log and through any death; its memory is what the log says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gx.core import event as e
from gx.core.errors import GxError, ModelError, NotFound, UsageError
from gx.core.memory import Draft, Filter, Found, MemoryStats, Query, Source, Written
from gx.core.message import Label
from gx.node.memoryroutes import Forget, Forgot, Listing, MemoryPage, Remember, Renewal, Search
from gx.run.log import EventLog
from gx.run.log.verify import verify
from gx.settings import Settings
from tests.node.served import Served, serve
from tests.tiny_bert import write_tiny_bert

FACTS = ["the invoice was paid twice", "cats sleep all day", "the server room is on the third floor"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_bert(tmp_path_factory.mktemp("bert") / "bert.gguf"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".gx"


class Asking:
    """What a client asks of a node's memory."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def _post(self, path: str, body: Any, kind: Any) -> Any:
        return self.served.client.ask("POST", f"/v1/memory{path}", body, kind=kind, timeout_s=60)

    def write(self, *drafts: Draft | str, model: str | None = None) -> Written:
        made = tuple(one if isinstance(one, Draft) else Draft(body=one) for one in drafts)
        return self._post("", Remember(memories=made, model=model), Written)

    def search(self, text: str, *, model: str | None = None, **more: Any) -> Found:
        return self._post("/search", Search(query=Query(text=text, **more), model=model), Found)

    def bodies(self, text: str, **more: Any) -> list[str]:
        return [hit.memory.body for hit in self.search(text, **more).hits]

    def forget(self, *uids: str, wanted: Filter | None = None) -> tuple[str, ...]:
        return self._post("/forget", Forget(uids=uids, filter=wanted), Forgot).uids

    def listed(self, **more: Any) -> MemoryPage:
        return self._post("/list", Listing(**more), MemoryPage)

    def renew(self, how: Any, model: str | None = None) -> MemoryStats:
        return self._post("/renewal", Renewal(how=how, model=model), MemoryStats)

    def stats(self) -> MemoryStats:
        return self.served.client.ask("GET", "/v1/memory", kind=MemoryStats)


def settings(folder: Path, model: str = "none") -> Settings:
    return Settings(threads=1, slots=2, memory_model=model, models_dir=folder.parent / "models")


@pytest.fixture
def by_words(folder: Path) -> Iterator[Asking]:
    with serve(folder, settings(folder)) as served:
        yield Asking(served)


@pytest.fixture
def embedded(folder: Path, bert: str) -> Iterator[Asking]:
    with serve(folder, settings(folder, bert)) as served:
        yield Asking(served)


def test_without_a_model_words_are_found_and_that_is_said(by_words: Asking) -> None:
    written = by_words.write(*FACTS)
    assert len(written.uids) == 3 and written.n_known == 0 and "by words only" in written.notes[0]
    found = by_words.search("who paid invoices?")
    assert [hit.memory.body for hit in found.hits] == FACTS[:1] and "by words only" in found.notes[0]
    assert found.hits[0].memory.label is Label.private
    (again,) = [by_words.write(*FACTS)]
    assert again.uids == written.uids and again.n_known == 3 and by_words.stats().memories == 3
    assert len([event for event in by_words.served.node.log.read() if isinstance(event.body, e.MemoryWritten)]) == 1


def test_a_memory_says_who_wrote_it(by_words: Asking) -> None:
    by_words.write("a", Draft(body="b", source=Source(by="ada", path="/x", ordinal=2, heading="H", page=3)))
    first, second = by_words.listed().memories
    assert first.source.by == "somebody" or first.source.by
    assert second.source == Source(by="ada", path="/x", ordinal=2, heading="H", page=3)


def test_vectors_find_what_no_word_does(embedded: Asking) -> None:
    assert embedded.write(*FACTS).notes == ()
    found = embedded.search("zzz qqq")
    assert len(found.hits) == 3 and all(hit.text_rank is None and hit.similarity is not None for hit in found.hits)
    assert embedded.search(FACTS[1], k=1).hits[0].similarity == pytest.approx(1.0, abs=1e-3)
    stats = embedded.stats()
    assert (stats.memories, stats.vectors, stats.dimensions) == (3, 3, 64)
    assert embedded.search("zzz", is_text_only=True).hits == ()


def test_a_memory_that_is_too_long_for_the_model_has_a_vector_all_the_same(embedded: Asking) -> None:
    embedded.write("word by word " * 500, "short")
    assert embedded.stats().vectors == 2 and embedded.stats().notes == ()


def test_vectors_of_two_models_are_never_mixed(embedded: Asking, tmp_path: Path) -> None:
    other = str(write_tiny_bert(tmp_path / "other.gguf", seed=7))
    embedded.write(*FACTS)
    for ask in (lambda: embedded.write("x", model=other), lambda: embedded.search("x", model=other)):
        with pytest.raises(ModelError, match="can't be compared") as told:
            ask()
        assert told.value.code == "memory.mixed" and "reembed" in told.value.hint
    assert embedded.stats().memories == 3
    stats = embedded.renew("reembed", other)
    assert stats.vectors == 3 and stats.model == other and embedded.search("x", model=other).notes == ()
    assert embedded.search(FACTS[0], k=1).hits[0].similarity == pytest.approx(1.0, abs=1e-3)


def test_what_was_forgotten_is_gone_from_search_and_from_every_file(folder: Path, bert: str) -> None:
    secret = "the passphrase is xylophone quartz"
    with serve(folder, settings(folder, bert)) as served:
        asking = Asking(served)
        uid, *_ = asking.write(Draft(body=secret, source=Source(heading="Zanzibar")), *FACTS).uids
        assert asking.forget(uid[:8]) == (uid,)
        assert secret not in asking.bodies("passphrase xylophone") and asking.stats().memories == 3
        with pytest.raises(NotFound):
            asking.forget(uid)
    for file in (path for path in folder.iterdir() if path.is_file()):
        assert b"xylophone" not in file.read_bytes() and b"Zanzibar" not in file.read_bytes(), file
    with EventLog.open(folder, read_only=True) as log:
        assert not verify(log).problems
        assert [event.body.subject for event in log.read() if isinstance(event.body, e.ContentErased)] == ["memory"]
    with serve(folder, settings(folder, bert)) as served:
        asking = Asking(served)
        asking.renew("rebuild")
        assert secret not in asking.bodies("passphrase") and len(asking.listed().memories) == 3
        assert asking.write(Draft(body=secret, source=Source(heading="Zanzibar"))).uids == (uid,)
        assert asking.bodies("passphrase", k=1) == [secret]


def test_a_whole_namespace_is_forgotten_by_a_filter(by_words: Asking) -> None:
    by_words.write(*[Draft(body=f"n {n}", namespace=f"space{n % 2}") for n in range(150)])
    assert len(by_words.forget(wanted=Filter(namespace="space1"))) == 75
    assert [one.namespace for one in by_words.stats().namespaces] == ["space0"]


@pytest.mark.parametrize("harm", ["gone", "garbage", "cut", "older", "newer"])
def test_a_file_that_is_not_what_the_log_says_is_made_again(folder: Path, bert: str, harm: str, tmp_path: Path) -> None:
    file = folder / "memory.db"
    with serve(folder, settings(folder, bert)) as served:
        Asking(served).write(*FACTS[:2])
    shutil.copy(file, tmp_path / "older.db")
    shutil.copytree(folder, tmp_path / "before", ignore=shutil.ignore_patterns("gx.sock"))
    with serve(folder, settings(folder, bert)) as served:
        asking = Asking(served)
        asking.write(FACTS[2])
        asking.forget(asking.search(FACTS[0], k=1).hits[0].memory.uid)
        expected = asking.search("the server room"), asking.listed().memories
    left = FACTS[1:]
    match harm:
        case "gone":
            file.unlink()
        case "garbage":
            file.write_bytes(b"garbage " * 1000)
        case "cut":
            file.write_bytes(file.read_bytes()[:5000])
        case "older":
            shutil.copy(tmp_path / "older.db", file)
            shutil.copy(tmp_path / "older.db", folder / "memory.db.new")  # of a node that was killed
        case "newer":
            shutil.copy(file, tmp_path / "newer.db")
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / "before", folder)
            shutil.copy(tmp_path / "newer.db", file)
            left = FACTS[:2]
    with serve(folder, settings(folder, bert)) as served:
        asking = Asking(served)
        stats = asking.stats()
        assert bool(stats.notes) == (harm != "older"), stats.notes
        assert [one.body for one in asking.listed().memories] == left
        assert [one.name for one in folder.glob("memory.db.new*")] == []
        if harm != "newer":
            found = asking.search("the server room")
            assert [hit.memory for hit in found.hits] == [hit.memory for hit in expected[0].hits]
            assert [hit.score for hit in found.hits] == [hit.score for hit in expected[0].hits]
            assert asking.listed().memories == expected[1]


def test_compacting_keeps_vectors_and_answers(embedded: Asking) -> None:
    embedded.write(*(f"memory number {n} of many" for n in range(300)))
    embedded.forget(*[one.uid for one in embedded.listed(limit=10).memories][:40])
    before, stats = embedded.search("number 299"), embedded.stats()
    after = embedded.renew("compact")
    assert (after.memories, after.vectors) == (stats.memories, stats.vectors) and after.notes == ()
    assert embedded.search("number 299") == before
    assert embedded.renew("rebuild").vectors == stats.vectors
    assert [hit.memory for hit in embedded.search("number 299").hits] == [hit.memory for hit in before.hits]


def test_pages_have_every_memory_once(by_words: Asking) -> None:
    by_words.write(*(f"m {n}" for n in range(200)))
    found, after = list[str](), -1
    while True:
        page = by_words.listed(limit=30, after=after)
        found += [one.body for one in page.memories]
        if page.next is None:
            break
        after = page.next
    assert found == [f"m {n}" for n in range(200)]


def test_what_cannot_be_remembered_or_asked_is_refused_with_its_reason(by_words: Asking) -> None:
    bad = (
        lambda: by_words.write("  \n"),
        lambda: by_words.write("a\0b"),
        lambda: by_words.write(Draft(body="a", namespace="a b")),
        lambda: by_words.write(Draft(body="a", at=float("1e300"))),
        lambda: by_words.write(*(["a"] * 1001)),
        lambda: by_words.search(" "),
        lambda: by_words.search("a", k=0),
        lambda: by_words.search("a", min_score=2.0),
        lambda: by_words.forget("../etc"),
        lambda: by_words.listed(limit=0),
    )
    for ask in bad:
        with pytest.raises(UsageError, match="expected"):
            ask()
    with pytest.raises(GxError, match="on this machine"):
        by_words.renew("reembed", "bge-small")
    assert by_words.stats().memories == 0


def test_the_log_tells_its_memories_in_sql(by_words: Asking) -> None:
    kept, gone = by_words.write(Draft(body="kept", namespace="n", source=Source(path="/a.md", page=2)), "gone").uids
    by_words.forget(gone)
    asked = {"sql": "SELECT uid, namespace, body, label, path, page, kind FROM memories"}
    rows = by_words.served.post("/v1/query", asked).json()["rows"]
    assert rows == [
        {"uid": kept, "namespace": "n", "body": "kept", "label": "private", "path": "/a.md", "page": 2, "kind": "fact"}
    ]


def test_a_file_that_is_damaged_while_in_use_is_told_and_made_again(folder: Path) -> None:
    with serve(folder, settings(folder)) as served:
        asking = Asking(served)
        asking.write(*(f"memory number {n}" for n in range(300)))
        asking.renew("compact")
        file = folder / "memory.db"
        with file.open("r+b") as opened:
            opened.seek(4096)
            opened.write(b"\xff" * (file.stat().st_size - 4096))
        with pytest.raises(GxError) as told:
            asking.search("number 7")
        assert told.value.code == "memory.damaged" and "gx memory rebuild" in told.value.hint
        assert asking.renew("rebuild").memories == 300
        assert asking.bodies("number 7", k=1) == ["memory number 7"]
