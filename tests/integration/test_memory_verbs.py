"""`gx memory` from a shell: what is added is found, listed, carried elsewhere and forgotten; mistakes are told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.integration.project import Done, Project

ENV = {"GX_MEMORY_MODEL": "none"}


def memory(project: Project, *words: str, stdin: bytes = b"") -> Done:
    done = project.run("memory", *words, stdin=stdin, **ENV)
    assert done.status == 0, done.err
    return done


def test_what_is_added_is_found_listed_carried_and_forgotten(folder: Project) -> None:
    (folder.folder / "note.txt").write_text("\ufeffThe keys are\nunder the mat.\n")
    (folder.folder / "more.jsonl").write_text(
        '{"body": "Tea at five", "kind": "episode", "at": 5.5, "namespace": "day"}\n\n'
        '{"body": "[red]Coffee\\u001b at six"}\n'
    )
    words = ("Ada likes tea", "note.txt", "more.jsonl", "-", "-n", "home", "--source", "me", "--lines", "--json")
    added = memory(folder, "add", *words, stdin=b"from stdin\n\nand again\n")
    assert len(added.records) == 7 and "7 memories remembered" in added.err
    found = memory(folder, "search", "who drinks tea?", "-k", "2", "--json")
    assert {one["body"] for one in found.records} == {"Ada likes tea", "Tea at five"}
    assert found.records[0]["score"] == 1.0 and found.records[0]["label"] == "private" and "by words only" in found.err
    from_file = memory(folder, "search", "keys mat", "--source", "note.txt", "--json").records
    assert {one["body"] for one in from_file} == {"The keys are", "under the mat."}
    assert from_file[0]["source"] == {"by": "me", "path": str(folder.folder / "note.txt")}
    table = folder.run("memory", "ls", "--json", "-n", "day", **ENV).records
    assert [(one["body"], one["at"], one["kind"]) for one in table] == [("Tea at five", 5.5, "episode")]

    exported = memory(folder, "export")
    lines = "".join(json.dumps(one) + "\n" for one in exported.records).encode()
    other = str(folder.folder / "other")
    for known in (0, 7):
        told = memory(folder, "import", "-", "--workspace", other, "--json", stdin=lines)
        assert [one["uid"] for one in told.records] == [one["uid"] for one in exported.records]
        assert (f"{known} of them already" in told.err) == bool(known)
    assert memory(folder, "export", "--workspace", other).records == exported.records

    uid = added.records[0]["uid"]
    assert memory(folder, "rm", uid[:6], "--yes", "--json").records == [{"uid": uid}]
    assert "erased from the log" in memory(folder, "rm", "-n", "home", "--yes").err
    assert [one["body"] for one in memory(folder, "export").records] == ["Tea at five"]
    stats = memory(folder, "stats", "--json")
    assert stats.records == [
        {"namespace": "day", "memories": 1, "facts": 0, "episodes": 1, "chunks": 0, "private": 1, "vectors": 0}
    ]


def test_a_table_shows_a_memory_as_one_harmless_line(folder: Project) -> None:
    memory(folder, "add", "a [red]b\x1b[31m\nc")
    process = folder.start("memory", "ls", "--plain", **ENV).process
    out, _ = process.communicate(timeout=180)
    assert b"a [red]b [31m c" in out and b"\x1b" not in out


@pytest.mark.parametrize(
    "words, told",
    [
        (("add", "nofile.md"), "there is no file nofile.md"),
        (("add", "report.pdf", "-n", "work"), "there is no file report.pdf"),
        (("add", "a picture", "photo.PNG"), "there is no file photo.PNG"),
        (("add", " "), "expected text"),
        (("add", "a", "-n", "a b"), "a namespace: expected"),
        (("add", "bad.jsonl"), "bad.jsonl:2: expected a memory"),
        (("add", "latin.txt", "--lines"), "expected text in UTF-8, got byte 0xe9 at 3"),
        (("add", "latin.txt", "-n", "a b"), "a namespace: expected"),
        (("import", "bad.jsonl"), "bad.jsonl:2: expected a memory"),
        (("import", "none.jsonl"), "none.jsonl can't be read"),
        (("search", "x", "-k", "0"), "k: expected 1 to"),
        (("search", "x", "--since", "soon"), "--since: expected a date"),
        (("rm", "0123456789abcdef"), "add --yes"),
        (("rm", "--yes"), "which memories?"),
        (("rm", "zz", "--yes"), "a memory's name: expected"),
        (("search", "x", "--since", "0001-01-01"), "--since: expected a date"),
        (("add", "notes/nothing"), "there is no file notes/nothing"),
        (("eval", ".", "--questions", "asked.jsonl"), "asked.jsonl:2: there is no document b.md"),
    ],
)
def test_mistakes_are_told_and_end_with_two(kept: Project, words: tuple[str, ...], told: str) -> None:
    done = kept.run("memory", *words, **ENV)
    assert done.status == 2 and told in done.err, done.err


def test_what_is_not_there_is_an_error(folder: Project, kept: Project) -> None:
    done = folder.run("memory", "search", "x", "--workspace", str(folder.folder / "none"), **ENV)
    assert done.status == 1 and "nothing is remembered in" in done.err and not (folder.folder / "none").exists()
    done = kept.run("memory", "rm", "0123456789abcdef", "--yes", **ENV)
    assert done.status == 1 and "there is no memory 0123456789abcdef" in done.err
    done = kept.run("memory", "reembed", "--model", "bge-small", **ENV)
    assert done.status == 1 and "gx models pull bge-small" in done.err


def test_odd_words_are_texts_and_sources_like_others(kept: Project) -> None:
    odd = "~nobody likes\u2028tea \x85"  # a tilde of nobody, and ends of lines that JSON lines don't know
    space = ("-n", "odd")
    assert memory(kept, "add", odd, *space, "--source", "x" * 300, "--json").records
    (found,) = memory(kept, "search", "tea", "--source", "x" * 300, "--json").records
    assert found["body"] == odd and not memory(kept, "search", "tea", "--source", "~nobody", "--json").records
    line = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in memory(kept, "export", *space).records)
    assert "1 of them already" in memory(kept, "import", "-", stdin=line.encode()).err
    done = kept.run("memory", "add", "pipe.jsonl", **ENV)
    assert done.status == 3 and "pipe.jsonl: it is neither a file nor a folder" in done.err


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose node stays, so that many commands ask the same."""
    folder: Path = tmp_path_factory.mktemp("kept")
    made = Project(folder)
    made.env["GX_NODE_LINGER_S"] = "60"
    (folder / "bad.jsonl").write_text('{"body": "good"}\n{"text": "bad"}\n')
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "asked.jsonl").write_text('\n{"question": "q", "path": "b.md", "passage": "p"}\n')
    assert made.run("memory", "add", "a memory", **ENV).status == 0
    yield made  # type: ignore[misc]
    made.close()
