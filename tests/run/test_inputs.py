"""Every input becomes rows; a bad row fails alone, a bad input is an `InputError`."""

from __future__ import annotations

import codecs
import io
import json
import os
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gx.core.errors import InputError, UsageError
from gx.core.ids import canonical
from gx.flow.withheld import named_in, row_without
from gx.run.inputs import Row, Source, open_inputs, take
from gx.run.inputs.rowids import RowIds
from gx.run.inputs.rows import MAX_DEPTH

FAST = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
X = frozenset(("x",))


def stdin(content: bytes, fmt: str | None = None, **options: Any) -> Source:
    return open_inputs("-", base_dir=Path(), fmt=fmt, stdin=io.BytesIO(content), **options)


def file(folder: Path, name: str, content: bytes, fmt: str | None = None, **options: Any) -> Source:
    (folder / name).write_bytes(content)
    return open_inputs(name, base_dir=folder, fmt=fmt, stdin=io.BytesIO(), **options)


def rows(content: bytes, fmt: str | None = None, **options: Any) -> list[Row]:
    return list(stdin(content, fmt, **options).rows())


def values(content: bytes, fmt: str | None = None) -> list[Any]:
    return [json.loads(row.value) if row.value else row.error for row in rows(content, fmt)]


# ── formats ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_json_lines_keep_their_ids_indexes_and_lines() -> None:
    found = rows(b'{"id":"a","x":1}\n\n  \n{"id":7}\r\n{"y":2}', "jsonl")
    assert [(r.index, r.line, r.id, r.value) for r in found] == [
        (0, 1, "a", b'{"id":"a","x":1}'),
        (1, 4, "7", b'{"id":7}'),
        (2, 5, "2", b'{"y":2}'),
    ]


def test_a_json_line_that_is_no_object_becomes_text_or_value() -> None:
    assert values(b'"hi"\n3\n[1]\nnull\n', "jsonl") == [{"text": "hi"}, {"value": 3}, {"value": [1]}, {"value": None}]


def test_a_rows_value_is_canonical() -> None:
    assert (
        rows(b'{ "b": 1, "a": {"d": 1.0, "c": "\\u00e9"} }', "jsonl")[0].value
        == '{"a":{"c":"é","d":1.0},"b":1}'.encode()
    )


def test_batch_lines_bring_their_messages_and_the_last_user_text() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "x"}]}
    parts = body | {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "p"}, {"type": "text", "text": "q"}]}]
    }
    lines = [{"custom_id": "r1", "method": "POST", "body": body}, {"custom_id": "r2", "body": parts}]
    found = rows(b"\n".join(canonical(line) for line in lines), "jsonl")
    assert [(r.id, r.is_batch) for r in found] == [("r1", True), ("r2", True)]
    assert json.loads(found[0].value or b"") == {"id": "r1", "messages": body["messages"], "body": body, "text": "one"}
    assert json.loads(found[1].value or b"")["text"] == "p\nq"
    assert rows(b'{"custom_id":"r","body":{"messages":"x"}}')[0].error == (
        "expected body.messages to be a list of objects, got something else"
    )


def test_a_json_array_is_read_element_by_element(tmp_path: Path) -> None:
    content = b' \n[{"id": "a,]\\"b"},\n {"n": {"m": [1, {}]}}, "t", {bad}, [2],\n\n 4 ]\n'
    found = list(file(tmp_path, "in.json", content).rows())
    assert [r.line for r in found] == [2, 3, 3, 3, 3, 5]
    assert [json.loads(r.value) if r.value else None for r in found] == [
        {"id": 'a,]"b'}, {"n": {"m": [1, {}]}}, {"text": "t"}, None, {"value": [2]}, {"value": 4},
    ]  # fmt: skip
    assert found[3].error == "malformed JSON at col 2: object keys must be strings"


@pytest.mark.parametrize(("content", "last"), [(b"[1, 2", "expected `]`"), (b"[1, 2] x", "nothing behind the array")])
def test_an_array_without_its_end_fails_in_a_row_of_its_own(content: bytes, last: str) -> None:
    found = rows(content, "json")
    assert [r.value for r in found[:2]] == [b'{"value":1}', b'{"value":2}']
    assert last in (found[2].error or "")


def test_a_json_file_may_hold_one_object_or_json_lines() -> None:
    assert values(b'{\n "a": 1\n}\n', "json") == [{"a": 1}]
    assert values(b'{"a": 1}\n{"a": 2}\n', "json") == [{"a": 1}, {"a": 2}]


def test_csv_rows_are_objects_of_text(tmp_path: Path) -> None:
    content = b'id, text \r\na,"x, ""y""\r\nz"\r\n\r\n,plain\n'
    found = list(file(tmp_path, "in.csv", content).rows())
    assert [json.loads(r.value or b"") for r in found] == [
        {"id": "a", "text": 'x, "y"\nz'},
        {"id": "", "text": "plain"},
    ]
    assert [(r.line, r.id) for r in found] == [(2, "a"), (5, "1")]


def test_a_ragged_csv_record_fails_with_both_counts() -> None:
    assert values(b"a\tb\n1\n1\t2\n1\t2\t3\n", "tsv") == [
        "expected 2 fields as in the header, got 1",
        {"a": "1", "b": "2"},
        "expected 2 fields as in the header, got 3",
    ]


def test_a_broken_csv_record_fails_alone() -> None:
    assert values(b'a,b\n"x"y,2\n1,2\n\xff,3\n1,\x004\n5,6\n"7,8', "csv") == [
        "malformed CSV: ',' expected after '\"'",
        {"a": "1", "b": "2"},
        "expected UTF-8, got the byte 0xff at offset 0",
        "expected text, got a NUL byte at offset 2",
        {"a": "5", "b": "6"},
        "malformed CSV: unexpected end of data",
    ]


def test_a_quote_that_never_closes_takes_at_most_the_largest_row_with_it() -> None:
    found = rows(b'a\n"open\n' + b"x\n" * 100, "csv", max_row_bytes=50)
    assert found[0].error is not None and "at most 50 bytes" in found[0].error
    assert len(found) > 70


@pytest.mark.parametrize("header", [b"a,a\n1,2\n", b"a,\n1,2\n", b"a, a\n", b'"a\n', b"\xff,b\n"])
def test_a_csv_header_that_cannot_name_its_columns_refuses_the_input(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(InputError):
        rows(header, "csv")
    with pytest.raises(InputError, match=r"in\.csv"):
        file(tmp_path, "in.csv", header)


def test_a_text_file_is_a_row_a_line(tmp_path: Path) -> None:
    found = list(file(tmp_path, "in.txt", b"one\n\n  two \r\nthree").rows())
    assert [(r.line, r.value) for r in found] == [
        (1, b'{"text":"one"}'), (3, b'{"text":"  two "}'), (4, b'{"text":"three"}'),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "first"),
    [(b'\n{"a":1}\n', b'{"a":1}'), (b"hello\n", b'{"text":"hello"}'), (b"[1]\n", b'{"text":"[1]"}')],
)
def test_stdin_and_unknown_files_go_by_their_first_line(tmp_path: Path, content: bytes, first: bytes) -> None:
    assert rows(content)[0].value == first
    assert next(file(tmp_path, "in.log", content).rows()).value == first


def test_a_folder_is_a_row_a_file_and_a_binary_one_fails(tmp_path: Path) -> None:
    for name, content in {
        "b.txt": b"B",
        "a/x.md": b"\xef\xbb\xbfX",
        "c.bin": b"\0",
        ".hid": b"h",
        "u": b"\xff\xfeu\0",
    }.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    found = list(open_inputs("in", base_dir=tmp_path, stdin=io.BytesIO()).rows())
    assert [(r.id, r.line, r.error) for r in found] == [
        ("b.txt", None, None),
        ("c.bin", None, "expected text, got a NUL byte at offset 0"),
        ("u", None, None),
        ("a/x.md", None, None),
    ]
    assert json.loads(found[3].value or b"") == {"id": "a/x.md", "path": "in/a/x.md", "text": "X"}
    assert json.loads(found[2].value or b"")["text"] == "u"
    globbed = list(open_inputs("in/**/*.md", base_dir=tmp_path, stdin=io.BytesIO()).rows())
    assert [(r.id, json.loads(r.value or b"")["path"]) for r in globbed] == [("a/x.md", "in/a/x.md")]


# ── what is wrong with a row ─────────────────────────────────────────────────────────────────────────────────────


def test_bad_lines_fail_with_their_reason_and_the_rest_goes_on() -> None:
    assert values(
        b'{"a":1}\n{"a":\xff}\n{"a"\0:1}\n{"a":x}\n{"a":\n{"n":1e999}\n' + b"[" * 5000 + b'\n{"a":2}\n', "jsonl"
    ) == [
        {"a": 1},
        "expected UTF-8, got the byte 0xff at offset 5",
        "expected text, got a NUL byte at offset 4",
        "malformed JSON at col 6: invalid character",
        "malformed JSON: Input data was truncated",
        "malformed JSON: Number out of range",
        "expected JSON that is nested less deeply",
        {"a": 2},
    ]


@pytest.mark.parametrize(("open_", "close"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_a_row_may_be_nested_as_deep_as_python_can_walk_and_no_deeper(open_: bytes, close: bytes) -> None:
    deepest = (MAX_DEPTH - 1) // (open_.count(b"[") + open_.count(b"{"))
    lines = (open_ * depth + b'{"x":1}' + close * depth for depth in (deepest, deepest + 1))
    fits, deeper = rows(b"\n".join(lines), "jsonl")
    assert fits.error is None and fits.value is not None
    row = json.loads(fits.value)
    assert named_in(row, X) == "x" and repr(row_without(row, X, "item")) == "<withheld item>"
    assert deeper.error == "expected JSON that is nested less deeply"
    assert rows(b'{"a":"' + b"[" * 999 + b'"}', "jsonl")[0].error is None


@pytest.mark.parametrize("fmt", ["jsonl", "lines", "csv", "json"])
def test_a_row_that_is_too_long_fails_with_its_size(fmt: str) -> None:
    long = b'"' + b"x" * 98 + b'"'
    content = {"json": b"[1," + long + b",2]", "csv": b"h\n1\n" + long + b"\n2\n"}.get(fmt, b"1\n" + long + b"\n2\n")
    found = rows(content, fmt, max_row_bytes=99)
    assert [r.error for r in found] == [None, "expected a row of at most 99 bytes, got 100", None]
    assert [r.error for r in rows(content, fmt, max_row_bytes=100)] == [None, None, None]


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
@pytest.mark.parametrize("fmt", ["jsonl", "json", "csv", None])
def test_byte_order_marks_are_understood(mark: bytes, fmt: str | None) -> None:
    codec = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}[mark]
    text = {"csv": 'x\n"é😀Ċ"\n', "json": '[{"x": "é😀Ċ"}]'}.get(str(fmt), '{"x": "é😀Ċ"}\n')
    assert values(mark + text.encode(codec), fmt) == [{"x": "é😀Ċ"}]


def test_half_a_character_of_utf_16_fails_its_line_alone() -> None:
    content = codecs.BOM_UTF16_LE + "a\n".encode("utf-16-le") + b"\x00\xd8" + "\nb".encode("utf-16-le") + b"x"
    found = rows(content, "lines")
    assert [r.error is None for r in found] == [True, False, False]


# ── ids ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_repeated_ids_run_under_new_ones_with_one_warning() -> None:
    source = stdin(b'{"id":"a"}\n{"id":"a"}\n{"id":"a#2"}\n{"id":"a"}\n{"id":"5"}\n{}\n', "jsonl")
    assert [r.id for r in source.rows()] == ["a", "a#2", "a#2#2", "a#3", "5", "5#2"]
    assert source.warnings == ["the id 'a' comes again in line 2: it and later repeats run as 'a#2' and so on"]


@given(st.lists(st.sampled_from(["a", "b", "a#2", "a#2#2", "", "0", "1"]), max_size=40))
def test_ids_are_unique_and_first_comers_keep_theirs(brought: list[str]) -> None:
    ids = RowIds()
    given_ids = [ids.unique(row_id) for row_id in brought]
    assert len(set(given_ids)) == len(brought)
    assert all(new == old or new.startswith(f"{old}#") for old, new in zip(brought, given_ids, strict=True))


def test_thirty_thousand_ids_take_about_a_megabyte() -> None:
    tracemalloc.start()
    ids = RowIds()
    for number in range(30_000):
        assert ids.unique(f"row-{number}") == f"row-{number}"
    assert tracemalloc.get_traced_memory()[0] < 1_500_000
    tracemalloc.stop()


# ── inputs as a whole ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fmt", ["jsonl", "json", "csv", "tsv", "lines", None])
@pytest.mark.parametrize("content", [b"", b"\n \n", codecs.BOM_UTF8])
def test_an_empty_input_has_no_rows(fmt: str | None, content: bytes, tmp_path: Path) -> None:
    assert rows(content if fmt not in ("csv", "tsv") else content.replace(b" ", b""), fmt) == []
    assert list(file(tmp_path, "in.jsonl", content).rows()) == []


def test_what_is_not_there_is_an_input_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "tickets.jsonl").write_bytes(b"{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "x").write_bytes(b"\0\1")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    for spec, words in {
        "ticket.jsonl": "did you mean `tickets.jsonl`?", "empty": "hidden", "binary": "", "*.csv": "quote",
        "x.parquet": "JSON lines", "": "stdin", "a\0b": "", "x" * 5000: "",
    }.items():  # fmt: skip
        with pytest.raises(InputError) as caught:
            open_inputs(spec, base_dir=tmp_path, stdin=io.BytesIO())
        assert words in caught.value.hint
    with pytest.raises(InputError) as caught:
        open_inputs("-", base_dir=tmp_path, fmt="jsnl", stdin=io.BytesIO())
    assert caught.value.hint == "did you mean `jsonl`?"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("x.jsonl.gz", "gunzip -c x.jsonl.gz | gx run … -i - --format jsonl"),
        ("x y.CSV.GZ", "gunzip -c 'x y.CSV.GZ' | gx run … -i - --format csv"),
        ("notes.log.zst", "zstd -dc notes.log.zst | gx run … -i -"),
    ],
)
def test_a_compressed_file_is_refused_with_the_command_that_reads_it(name: str, command: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    with pytest.raises(InputError) as caught:
        open_inputs(name, base_dir=tmp_path, stdin=io.BytesIO())
    assert caught.value.hint == command


def test_a_digest_changes_with_content_and_names_only(tmp_path: Path) -> None:
    one = file(tmp_path, "in.jsonl", b"{}\n")
    first = one.digest()
    assert first is not None and len(first) == 32
    assert file(tmp_path, "other.jsonl", b"{}\n").digest() == first
    assert file(tmp_path, "in.jsonl", b"{ }\n").digest() != first
    assert stdin(b"{}").digest() is None
    digests = set()
    for name, content in (("a", b"1"), ("b", b"1"), ("b", b"2")):
        (tmp_path / "in").mkdir(exist_ok=True)
        for old in (tmp_path / "in").iterdir():
            old.unlink()
        (tmp_path / "in" / name).write_bytes(content)
        digests.add(open_inputs("in", base_dir=tmp_path, stdin=io.BytesIO()).digest())
    assert len(digests) == 3


def test_a_file_can_be_read_again_and_a_stream_cannot(tmp_path: Path) -> None:
    source = file(tmp_path, "in.jsonl", b'{"id":1}\n{"id":1}\n')
    assert list(source.rows()) == list(source.rows())
    assert len(source.warnings) == 1
    stream = stdin(b"{}\n")
    assert len(list(stream.rows())) == 1
    with pytest.raises(InputError, match="only once"):
        list(stream.rows())


def test_a_source_says_what_it_is(tmp_path: Path) -> None:
    assert file(tmp_path, "in.csv", b"a\n").describe() == "in.csv (CSV)"
    assert stdin(b"", "jsonl").describe() == "stdin (JSON lines)"
    assert open_inputs("*.csv", base_dir=tmp_path, stdin=io.BytesIO()).describe() == "*.csv (1 file)"


def test_a_pipe_gives_rows_as_they_come() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as stream:  # noqa: PTH123 (a descriptor has no path)
        source = open_inputs("-", base_dir=Path(), stdin=stream).rows()
        os.write(writing, b'{"id":"first"}\n')
        assert next(source).id == "first"  # the writer has not closed, nor written more
        os.close(writing)
        assert list(source) == []


def test_a_named_pipe_is_read_once_as_a_stream(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    writer = threading.Thread(target=(tmp_path / "pipe.jsonl").write_bytes, args=(b'{"a":1}\n',))
    writer.start()
    source = open_inputs("pipe.jsonl", base_dir=tmp_path, stdin=io.BytesIO())
    assert [r.value for r in source.rows()] == [b'{"a":1}']
    assert source.digest() is None
    writer.join()


class Endless(io.RawIOBase):
    """A stream of `total` bytes that repeats one piece, so that only what a reader keeps takes memory."""

    def __init__(self, piece: bytes, total: int) -> None:
        self._piece, self._width, self._at, self._total = piece * (65536 // len(piece) + 1), len(piece), 0, total

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        start = self._at % self._width  # whoever reads byte by byte gets the same bytes
        count = min(len(buffer), len(self._piece) - start, self._total - self._at)
        buffer[:count] = self._piece[start : start + count]
        self._at += count
        return count


@pytest.mark.parametrize(
    ("piece", "fmt", "total"),
    [(b'{"a": "' + b"x" * 4000 + b'"}\n', "jsonl", 50 << 20), (b"x", "jsonl", 50 << 20), (b"x", "csv", 50 << 20),
     (b"[" + b"x" * 4000, "json", 50 << 20), (b'"\n', "csv", 3 << 20)],
)  # fmt: skip
def test_memory_does_not_grow_with_the_input(piece: bytes, fmt: str, total: int) -> None:
    stream = io.BufferedReader(Endless(piece, total))
    source = open_inputs("-", base_dir=Path(), fmt=fmt, stdin=stream, max_row_bytes=1 << 20)  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        for _ in source.rows():
            pass
    except InputError:
        pass  # a header of 50 MiB
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20


# ── taking some ──────────────────────────────────────────────────────────────────────────────────────────────────


def numbered(count: int) -> Iterator[Row]:
    return (Row(index=number, id=str(number), value=b"{}") for number in range(count))


def test_a_limit_takes_the_first_rows_and_reads_no_further() -> None:
    source = numbered(10)
    assert [r.index for r in take(source, limit=3)] == [0, 1, 2]
    assert next(source).index == 3


@given(st.integers(0, 60), st.integers(0, 70), st.integers(0, 5))
def test_a_sample_keeps_order_and_indexes_and_its_seed_decides(count: int, sample: int, seed: int) -> None:
    drawn = [row.index for row in take(numbered(count), sample=sample, seed=seed)]
    assert len(drawn) == min(count, sample)
    assert drawn == sorted(set(drawn))
    assert drawn == [row.index for row in take(numbered(count), sample=sample, seed=seed)]


def test_a_sample_draws_every_row_about_as_often() -> None:
    drawn = [0] * 10
    for seed in range(600):
        for row in take(numbered(10), sample=3, seed=seed):
            drawn[row.index] += 1
    assert all(120 < count < 240 for count in drawn)  # 180 expected, about 11 of deviation


def test_a_sample_of_a_limit_draws_from_the_first_rows() -> None:
    assert all(row.index < 5 for row in take(numbered(100), limit=5, sample=3))
    with pytest.raises(UsageError):
        take(numbered(1), limit=-1)


# ── anything at all ──────────────────────────────────────────────────────────────────────────────────────────────

_PIECES = [
    b'{"id":1}', b"\n", b"\r", b",", b'"', b"[", b"]", b"{", b"}", b"\\", b"\xff", b"\0", b"\xff\xfe", b"\xef\xbb\xbf",
    b"\xd8\x00", b"a", b" ", b'{"custom_id":"x","body":{"messages":[{"role":"user"}]}}', b"1e999", b"\t",
]  # fmt: skip
_CONTENT = st.one_of(st.binary(), st.lists(st.sampled_from(_PIECES), max_size=30).map(b"".join))


@FAST
@given(_CONTENT, st.sampled_from(["jsonl", "json", "csv", "tsv", "lines", None]), st.sampled_from([5, 1000]))
def test_any_bytes_are_rows_or_an_input_error(content: bytes, fmt: str | None, most: int) -> None:
    try:
        found = rows(content, fmt, max_row_bytes=most)
    except InputError:
        assert fmt in ("csv", "tsv")
        return
    assert [row.index for row in found] == list(range(len(found)))
    assert len({row.id for row in found}) == len(found)
    for row in found:
        assert (row.value is None) != (row.error is None)
        assert row.value is None or isinstance(json.loads(row.value), dict)


_NAMES = st.one_of(st.text(max_size=20), st.text(alphabet="*?[]!-./~a", max_size=12))


@FAST
@given(_NAMES.filter(lambda spec: "**" not in spec and ".." not in spec and not spec.startswith(("/", "~"))))
def test_any_name_is_a_source_or_an_input_error(tmp_path: Path, spec: str) -> None:
    try:
        open_inputs(spec, base_dir=tmp_path, stdin=io.BytesIO())
    except InputError as error:
        assert error.message


@FAST
@given(_CONTENT)
def test_any_bytes_of_a_file_in_a_folder_are_one_row(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / "in" / "good").write_bytes(b"text")
    (tmp_path / "in" / "odd").write_bytes(content)
    assert len(list(open_inputs("in", base_dir=tmp_path, stdin=io.BytesIO()).rows())) == 2


_SCALARS = st.none() | st.integers() | st.text()
_JSON = st.recursive(_SCALARS, lambda part: st.lists(part) | st.dictionaries(st.text(), part), max_leaves=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(_JSON, max_size=5))
def test_an_array_gives_the_same_rows_as_its_elements_on_lines(elements: list[Any]) -> None:
    array = json.dumps(elements, ensure_ascii=False).encode("utf-8", "replace")
    lines = "\n".join(json.dumps(element, ensure_ascii=False) for element in elements).encode("utf-8", "replace")
    assert [r.value for r in rows(array, "json")] == [r.value for r in rows(lines, "jsonl")]
