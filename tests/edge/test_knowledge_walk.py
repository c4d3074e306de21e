"""Which files there are below a path, in which order, and what is told of the others."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.knowledge.changes import changes
from edge.knowledge.document import Limits, Skipped
from edge.knowledge.walk import Found, found
from gx.core.errors import InputError

LIMITS = Limits()


def walked(*paths: Path, limits: Limits = LIMITS) -> tuple[list[str], dict[str, str]]:
    """The names of what was found, and the reasons for what was skipped by name."""
    seen = list(found(paths, limits))
    names = [Path(one.path).name for one in seen if isinstance(one, Found)]
    return names, {Path(one.path).name: one.reason for one in seen if isinstance(one, Skipped)}


def test_files_come_in_the_order_of_their_names_each_once_with_its_digest(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/z.txt", "b/a.txt", "c.md", "B.md"):
        (tmp_path / name).write_text(name)
    for name in (".git", "node_modules", "__pycache__"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text("x")
    assert walked(tmp_path, tmp_path / "c.md", tmp_path / "b") == (["B.md", "a.txt", "z.txt", "c.md"], {})
    first = next(iter(found([tmp_path / "c.md"], Limits())))
    assert isinstance(first, Found)
    assert first.sha256 == hashlib.sha256(b"c.md").hexdigest() and first.size_bytes == 4
    assert first.mtime_ns == (tmp_path / "c.md").stat().st_mtime_ns


def test_a_link_out_of_the_folder_is_told_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("s")
    (tmp_path / "secrets").mkdir()
    inside = tmp_path / "docs"
    inside.mkdir()
    (inside / "a.txt").write_text("a")
    for name, target in (
        ("out", tmp_path / "secret.txt"),
        ("folder", tmp_path / "secrets"),
        ("same", inside / "a.txt"),
        ("loop", inside),
        ("gone", inside / "nothing"),
    ):
        (inside / name).symlink_to(target)
    names, skipped = walked(inside)
    assert names == ["a.txt"] and set(skipped) == {"out", "folder", "gone"}
    assert skipped["out"] == f"it is a link out of the folder, to {tmp_path / 'secret.txt'}"
    assert walked(inside / "out") == (["secret.txt"], {})  # whoever gives a link means what is behind it


def test_names_may_hold_anything_that_is_utf_8(tmp_path: Path) -> None:
    names = ["a\nb.txt", "\x1b[31mred.txt", "ü 'q\".md", "-rf.txt"]
    for name in names:
        (tmp_path / name).write_text("x")
    assert sorted(walked(tmp_path)[0]) == sorted(names)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_text("x" * 11)
    os.mkfifo(tmp_path / "pipe")
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/\xff.txt")).write_text("x")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    names, skipped = walked(tmp_path, limits=Limits(file_bytes=10))
    assert names == []
    assert skipped == {
        "big.txt": "it has 11 bytes; at most 10 are read",
        "pipe": "it is neither a file nor a folder",
        "\\xff.txt": "its name is not UTF-8: rename it",
    }


def test_one_link_that_cannot_be_followed_ends_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("x" * 300)  # longer than a name may be
    (tmp_path / "b").symlink_to("b")
    (tmp_path / "c.md").write_text("c")
    names, skipped = walked(tmp_path)
    assert names == ["c.md"] and set(skipped) == {"a", "b"}


def test_a_file_that_has_more_than_it_says_is_read_so_far_only(tmp_path: Path) -> None:
    endless = Path("/proc/self/maps")  # has 0 bytes, as it says
    if not endless.exists():
        pytest.skip("there is no file that says so little")
    (skipped,) = found([endless.resolve()], Limits(file_bytes=10))
    assert isinstance(skipped, Skipped) and skipped.reason == "it has more than 10 bytes"


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read: File name too long"):
        list(found([tmp_path / ("x" * 300)], Limits()))
    with pytest.raises(InputError, match=r"there is no file .*gone"):
        list(found([tmp_path / "gone"], Limits()))


def file(path: str, sha256: str) -> Found:
    return Found(path=path, size_bytes=1, mtime_ns=1, sha256=sha256)


def test_new_changed_unchanged_and_removed_are_told_apart() -> None:
    seen = [file("/d/new", "1"), file("/d/same", "2"), file("/d/other", "3"), Skipped(path="/d/shut", reason="")]
    known = {"/d/same": "2", "/d/other": "0", "/d/gone": "4", "/d/shut": "5", "/d/shut/in": "6", "/e/else": "7"}
    made = changes(seen, known, roots=["/d"])
    assert [[one.path for one in part] for part in (made.new, made.changed, made.unchanged)] == [
        ["/d/new"], ["/d/other"], ["/d/same"],
    ]  # fmt: skip
    assert made.removed == ("/d/gone",)  # what can't be read now is kept, and so is what stands elsewhere
    assert changes([], known).removed == tuple(known)


PATHS = st.sampled_from(["/d/a", "/d/b", "/d/c/a", "/d/c/b", "/e"])


@given(st.dictionaries(PATHS, st.sampled_from("12")), st.dictionaries(PATHS, st.sampled_from("12")))
def test_each_file_has_one_fate_and_what_was_applied_changes_nothing_more(
    here: dict[str, str], known: dict[str, str]
) -> None:
    seen = [file(path, sha256) for path, sha256 in here.items()]
    made = changes(seen, known)
    fates = [one.path for one in (*made.new, *made.changed, *made.unchanged)]
    assert sorted(fates) == sorted(here) and set(made.removed) == set(known) - set(here)
    again = changes(seen, here)
    assert (again.new, again.changed, again.removed) == ((), (), ())
