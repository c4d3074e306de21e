"""`gx models`: which models there are, and which are on this machine. No rules here: `edge.models` has them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gx.core.errors import UsageError

if TYPE_CHECKING:
    from edge.models import ModelFile, Progress
    from edge.prepare import Measured

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Fetch, find and delete the models that recipes name.\n\nA model is a catalogue name (see `gx models list`), "
    "./file.gguf, hf:owner/repo/file.gguf, or https://host/file.gguf#sha256=HEX.",
)

Json = Annotated[bool, typer.Option("--json", help="JSON lines, also on a terminal.")]
Plain = Annotated[bool, typer.Option("--plain", help="An aligned table, also in a pipe.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME…", help="Catalogue names or other sources.")]


@app.command("list")
def list_models(
    here: Annotated[bool, typer.Option("--here", help="Only what is on this machine.")] = False,
    json: Json = False,
    plain: Plain = False,
) -> None:
    """List the catalogue and the models on this machine.

    Sizes of models that are not here are approximate.

    Example: gx models list --here --json | jq -r .path
    """
    from edge import models
    from edge.catalogue import ENTRIES
    from edge.header import read_header
    from gx import output
    from gx.settings import load

    local = {found.name: found for found in models.list_local(load().models_dir)}
    rows: list[dict[str, Any]] = []
    for entry in sorted(ENTRIES, key=lambda e: (e.kind, e.size_bytes)):
        found = local.pop(entry.name, None)
        about = {"kind": entry.kind, "licence": entry.licence, "purpose": entry.purpose, "source": entry.source}
        rows.append({"name": entry.name} | _place(found, entry.size_bytes) | about)
    for found in local.values():
        about = {"licence": found.licence, "source": found.source}
        header = read_header(found.path)
        kind = None if header is None else header.kind()
        rows.append({"name": found.name, "kind": kind} | _place(found, found.size_bytes) | about)
    kept = (row for row in rows if row["here"] or not here)
    columns = ["name", "kind", "size", "here", "licence", "purpose"]
    output.emit(kept, columns=columns, as_json=_as_json(json, plain))


@app.command()
def pull(names: Names, json: Json = False, plain: Plain = False) -> None:
    """Download models and check their sha256; what is here already is left alone.

    A download that breaks off goes on where it stopped when the same command is run again. HF_TOKEN opens gated
    models; HF_ENDPOINT names a mirror.

    Example: gx models pull qwen3-4b bge-small

    Example: gx models pull hf:Qwen/Qwen3-4B-GGUF/Qwen3-4B-Q8_0.gguf
    """
    from gx import output

    rows = (_row(_pull(name)) for name in names)
    output.emit(rows, columns=["name", "size", "licence", "path"], as_json=_as_json(json, plain))


@app.command("path")
def path_of(name: Annotated[str, typer.Argument(metavar="NAME")], json: Json = False) -> None:
    """Print where a model's file is: one bare path, so that it fits in $(…). Downloads nothing.

    Example: llama-cli -m "$(gx models path smollm2)" -p Hello
    """
    from edge import models
    from gx import output
    from gx.settings import load

    settings = load()
    found = models.resolve(name, base_dir=Path.cwd(), models_dir=settings.models_dir, endpoint=settings.hub_endpoint)
    if isinstance(found, models.Missing):
        raise found.error()
    if json:
        output.emit([_row(found)], columns=["path"], as_json=True)
    else:
        output.write(f"{found.path}\n")


@app.command("rm")
def remove(names: Names, json: Json = False, plain: Plain = False) -> None:
    """Delete models from gx's models folder, with what is left of broken downloads.

    Files elsewhere (a path in a recipe, a package's model) are never deleted.

    Example: gx models rm qwen3-4b
    """
    from edge import models
    from gx import output
    from gx.settings import load

    models_dir = load().models_dir
    freed = ((name, models.remove(name, models_dir)) for name in names)
    rows = ({"name": name, "freed": _size(freed_bytes), "freed_bytes": freed_bytes} for name, freed_bytes in freed)
    output.emit(rows, columns=["name", "freed"], as_json=_as_json(json, plain))


@app.command("prepare")
def prepare(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A catalogue name or another source.")],
    kind: Annotated[
        str | None,
        typer.Option("--as", metavar="KIND", help="bf16, or q8_0 in half of its memory; without, what is fast here."),
    ] = None,
    is_removed: Annotated[bool, typer.Option("--rm", help="Delete the copies of this model instead.")] = False,
    json: Json = False,
    plain: Plain = False,
) -> None:
    """Make a copy of a model in a format that this machine computes faster, and measure both.

    Some formats have no fast path on some CPUs, and some have a faster one than others. The copy holds the same
    weights in another format: it answers, or embeds, nearly the same, and that of a 4-bit file takes more memory; how
    nearly, and how much, is printed. Runs use it from then on, until it is deleted.

    Example: gx models prepare smollm2 --as bf16
    """
    from edge import models, prepared
    from edge.kernels import is_step_down
    from gx import output
    from gx.settings import load

    settings = load()
    found = models.resolve(name, base_dir=Path.cwd(), models_dir=settings.models_dir, endpoint=settings.hub_endpoint)
    if isinstance(found, models.Missing):
        raise found.error()
    if is_removed:
        freed = prepared.remove(settings.models_dir, found.sha256)
        rows = [{"name": found.name, "freed": _size(freed), "freed_bytes": freed}]
        output.emit(rows, columns=["name", "freed"], as_json=_as_json(json, plain))
        return
    wanted = next((one for one in prepared.KINDS if one == (kind or _fast_here())), None)
    if wanted is None:
        raise UsageError(f"--as: expected {' or '.join(prepared.KINDS)}, got {kind!r}")
    if is_step_down(wanted, format_ := _format_of(found.path)):
        why = f"a {wanted} copy of {found.name} would be a step down: its file is in {format_}, with more bits a weight"
        raise UsageError(why, hint="use the file as it is")
    output.note(f"{found.name}: writing and measuring a {wanted} copy")
    path, copy = prepared.make(found.path, found.sha256, wanted, settings.models_dir)
    measured = copy.measured
    pairs = [
        ("size", (_size(measured.size_bytes), _size(measured.copy_bytes))),
        ("prompt tokens/s" if measured.decode else "tokens/s of texts", _rounded(measured.prefill)),
    ]
    if measured.decode:
        pairs.append((f"tokens/s of {measured.slots} answers", _rounded(measured.decode)))
    rows = [{"what": what, "before": before, "after": after} for what, (before, after) in pairs]
    output.emit(rows, columns=["what", "before", "after"], as_json=_as_json(json, plain))
    output.note(
        f"{_nearness(measured)}; runs of {found.name} use {path} from now on (until: gx models prepare {name} --rm)"
    )
    if measured.rates[1] <= measured.rates[0]:
        output.note("the copy isn't faster here: delete it, or measure again when the machine is idle")


def _fast_here() -> str:
    """The kind of copy for which the engine has a fast path on this CPU; BF16 where it has none, or can't be asked."""
    from edge.kernels import faster_copy
    from gx.node import machine

    return faster_copy(machine.probe_engine().flags) or "bf16"


def _format_of(path: Path) -> str:
    """What most weights of a file are in; empty if it doesn't say."""
    from edge.header import read_header

    header = read_header(path)
    return "" if header is None else header.main_format()[0]


def _rounded(rates: tuple[float, float]) -> tuple[int, int]:
    return round(rates[0]), round(rates[1])


def _nearness(measured: Measured) -> str:
    """How near a copy is to its source, in words."""
    if measured.cosine is not None:
        return f"the two vectors of each of {measured.texts} texts have a cosine of at least {measured.cosine:.5f}"
    return (
        f"over {measured.tokens} tokens the copy has the same likeliest next token at {measured.same_best:.1%}, and"
        f" diverges by {measured.kl:.4f} nats"
    )


def _pull(name: str) -> ModelFile:
    from edge import models
    from gx import output
    from gx.settings import load

    settings = load()
    start_s, done = time.monotonic(), 0

    with _progress(name) as show:

        def count(done_bytes: int, total_bytes: int | None) -> None:
            nonlocal done
            done = done_bytes
            show(done_bytes, total_bytes)

        found = models.fetch(
            name,
            models_dir=settings.models_dir,
            offline=settings.offline,
            on_progress=count,
            endpoint=settings.hub_endpoint,
        )
    how = f"{_size(found.size_bytes)} in {time.monotonic() - start_s:.0f} s" if done else "is here already"
    terms = f", licence {found.licence}" if found.licence else ""
    output.note(f"{found.name}: {how}{terms}")
    return found


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """A bar on stderr where stderr is a terminal that can draw one, and nothing elsewhere."""
    import sys

    from gx import output

    if not sys.stderr.isatty() or output.is_quiet() or (console := output.console()).is_dumb_terminal:
        yield lambda done_bytes, total_bytes: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name.partition("#")[0].rpartition("/")[2], total=None)  # an address would hide the bar
        yield lambda done_bytes, total_bytes: bar.update(task, completed=done_bytes, total=total_bytes)


def _row(found: ModelFile) -> dict[str, Any]:
    return {
        "name": found.name,
        "size": _size(found.size_bytes),
        "size_bytes": found.size_bytes,
        "licence": found.licence,
        "path": str(found.path),
        "sha256": found.sha256,
        "source": found.source,
    }


def _place(found: ModelFile | None, size_bytes: int) -> dict[str, Any]:
    if found is None:
        return {"size": f"~{_size(size_bytes)}", "size_bytes": size_bytes, "here": False, "path": None, "sha256": None}
    row = _row(found)
    return {"here": True} | {key: row[key] for key in ("size", "size_bytes", "path", "sha256")}


def _size(size_bytes: int) -> str:
    """Decimal units, as disks and the hub count."""
    for unit, bytes_each in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= bytes_each:
            return f"{size_bytes / bytes_each:.3g} {unit}"
    return f"{size_bytes} B"


def _as_json(json: bool, plain: bool) -> bool | None:
    """:raises UsageError: if both are asked for."""
    if json and plain:
        raise UsageError("--json and --plain exclude each other", hint="leave both out: a pipe gets JSON lines")
    return True if json else False if plain else None
