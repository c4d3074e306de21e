"""Which reader an input gets, by what it is called and what it is; and how many of its rows are taken."""

from __future__ import annotations

import glob
import random
import shlex
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from gx.core.errors import InputError, UsageError
from gx.flow.source import suggest
from gx.run.inputs.files import FilesSource, find_files, readable
from gx.run.inputs.rows import Row
from gx.run.inputs.source import FORMATS, FileSource, Source, StreamSource, format_of

MAX_ROW_BYTES = 16 * 1024 * 1024
_REFUSED = {".gz": "gunzip -c", ".zst": "zstd -dc", ".xz": "xz -dc", ".bz2": "bunzip2 -c", ".zip": "unzip -p"}
_CONVERT = (".parquet", ".xlsx", ".xls", ".arrow", ".feather")


def open_inputs(
    spec: str, *, base_dir: Path, fmt: str | None = None, stdin: BinaryIO, max_row_bytes: int = MAX_ROW_BYTES
) -> Source:
    """The source that `spec` names: a file, a folder or a glob, from `base_dir`, or "-" for `stdin`.

    `fmt` is one of `FORMATS`; `None` goes by the name, and by the first line where the name says nothing.

    :raises InputError: if there is nothing there that can be read, or a CSV's header can't be used.
    """
    if fmt is not None and fmt not in FORMATS:
        raise InputError(f"expected a format of input, got {fmt!r}", hint=suggest(fmt, FORMATS, "formats"))
    if spec == "-":
        unbuffered = getattr(stdin, "raw", stdin)  # whoever waits in it holds no lock that the interpreter's end needs
        return StreamSource(unbuffered, "stdin", fmt, max_row_bytes)
    path = _path(spec, base_dir)
    try:
        is_folder, is_there, is_stream = path.is_dir(), path.exists(), path.exists() and not path.is_file()
    except (OSError, ValueError) as error:
        raise InputError(f"expected a file, folder or glob, got {spec!r}: {error}") from None
    is_glob = not is_there and glob.has_magic(spec)
    if not is_there and not is_glob:
        raise InputError(f"expected an input, got no such file: {spec}", hint=_nearby(path))
    if is_folder or is_glob or fmt == "files":
        if fmt not in (None, "files"):
            raise InputError(f"expected a single file for the format {fmt}, got {spec}", hint="each file is a row")
        return FilesSource(readable(spec), find_files(spec, path, base_dir, is_folder=is_folder), max_row_bytes)
    suffix = path.suffix.lower()
    if suffix in _REFUSED:
        raise InputError(f"expected text, got a compressed file: {spec}", hint=_unpacked(path, spec, fmt))
    if suffix in _CONVERT:
        raise InputError(f"expected text, got a {suffix} file: {spec}", hint="write it as JSON lines or CSV first")
    if is_stream:
        return StreamSource(_opened(path, spec), readable(spec), fmt or format_of(path), max_row_bytes)
    source = FileSource(path, readable(spec), fmt or format_of(path), max_row_bytes)
    source.probe()
    return source


def take(rows: Iterable[Row], *, limit: int | None = None, sample: int | None = None, seed: int = 0) -> Iterator[Row]:
    """The first `limit` rows, or `sample` rows drawn from them with equal chances; indexes and order stay.

    Reservoir sampling (Vitter's algorithm R): every row is read, `sample` of them are held. `None` is no limit.

    :raises UsageError: if a number is negative.
    """
    for name, number in (("limit", limit), ("sample", sample)):
        if number is not None and number < 0:
            raise UsageError(f"--{name}: expected a number of rows, at least 0, got {number}")
    chosen = islice(rows, limit)
    return chosen if sample is None else _drawn(chosen, sample, random.Random(seed))


def _drawn(rows: Iterator[Row], sample: int, chance: random.Random) -> Iterator[Row]:
    held = list(islice(rows, sample))
    for seen, row in enumerate(rows, start=sample + 1):
        if (place := chance.randrange(seen)) < sample:
            held[place] = row
    yield from sorted(held, key=lambda row: row.index)


def _path(spec: str, base_dir: Path) -> Path:
    if not spec.strip():
        raise InputError("expected a file, folder or glob, got an empty name", hint="`-` reads stdin")
    try:
        return base_dir / Path(spec).expanduser()
    except RuntimeError:  # "~nobody": there is no such user, so it is taken as a name
        return base_dir / spec


def _unpacked(path: Path, spec: str, fmt: str | None) -> str:
    """The command that reads what is in a compressed file: on stdin no name says the format any more."""
    fmt = fmt or format_of(path.with_suffix(""))
    says = f" --format {fmt}" if fmt else ""
    return f"{_REFUSED[path.suffix.lower()]} {shlex.quote(spec)} | gx run … -i -{says}"


def _opened(path: Path, spec: str) -> BinaryIO:
    """A pipe, such as the shell's `<(command)` gives: it can be read once."""
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{spec}: expected a file that can be read, got: {error.strerror or error}") from None


def _nearby(path: Path) -> str:
    try:
        names = [other.name for other in islice(path.parent.iterdir(), 1000)] if path.parent.is_dir() else []
    except OSError:
        names = []
    close = suggest(path.name, names, "files")
    return close if close.startswith("did you mean") else f"paths are looked up from {path.parent}"
