"""`gx memory` and what it writes: `add` and `import`, what agents are to remember.

Parse, ask the workspace's node, print: what a memory is is said in `gx.core.memory`, and how documents are read in
`gx.cli.memoryfiles`.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from gx import output
from gx.cli import memoryfind, memoryforget
from gx.cli.memoryasking import Asking, JsonOpt, QuietOpt, SharedOpt, SourceOpt, SpaceOpt, model_of, tell
from gx.cli.place import WorkspaceOpt
from gx.core.errors import GxError, UsageError
from gx.core.memory import DEFAULT_NAMESPACE, Draft, Kind
from gx.core.message import Label
from gx.core.words import counted
from gx.output import ExitCode

HELP = "What agents remember: write it, search it, forget it."
PAGE = 500
"""Memories of one request."""
PAGE_CHARS = 8 << 20
TELL_EVERY_S = 5.0


def register(app: typer.Typer) -> None:
    """Add the verbs to `gx memory`."""
    app.command("add")(add)
    app.command("import")(import_)
    memoryfind.register(app)
    memoryforget.register(app)


def add(
    words: Annotated[list[str], typer.Argument(metavar="TEXT|PATH|-…", help="Texts, files, folders, or - for stdin.")],
    namespace: SpaceOpt = DEFAULT_NAMESPACE,
    kind: Annotated[Kind, typer.Option("--kind", help="What is so, what happened, or a part of a text.")] = Kind.fact,
    source: SourceOpt = "",
    shared: SharedOpt = False,
    lines: Annotated[bool, typer.Option("--lines", help="Each line of a file or of stdin is a memory.")] = False,
    as_json: JsonOpt = None,
    quiet: QuietOpt = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """Remember texts and documents. What is there already isn't there twice, so the same may be added again.

    A folder, or a file in it, is read as documents: text, Markdown, HTML, PDF, DOCX, CSV, JSON lines and source code,
    cut into parts that searches find. Added again, files that are as they were are passed over, changed ones take the
    place of what they were, and those that are gone from a folder are forgotten. Whatever is skipped is told, and then
    the exit code is 3.

    With --lines each line of a file or of stdin is a memory. JSON lines that say so, in a file or on stdin, are
    memories with their own fields: {"body": "…", "namespace": "…", "kind": "fact"}.

    \b
    Examples:
    \b
        gx memory add "Ada prefers short reports" -n people
        gx memory add ~/notes report.pdf -n work
    """
    from gx.cli.memoryfiles import add_documents
    from gx.cli.memoryinput import Given, drafts_of, is_document

    output.set_mode(quiet=quiet)
    given = Given(namespace=namespace, kind=kind, label=_label(shared), by=source or _user())
    documents = [] if lines else [word for word in words if is_document(word)]
    if texts := [word for word in words if word not in documents]:
        _write(drafts_of(texts, given, is_by_line=lines), workspace, as_json)
    if documents and not add_documents(documents, given, workspace, as_json=as_json):
        raise typer.Exit(ExitCode.some_failed)


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="JSON lines, as `gx memory export` writes them.")],
    namespace: SpaceOpt = DEFAULT_NAMESPACE,
    as_json: JsonOpt = None,
    quiet: QuietOpt = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """Remember what was exported, with its times, sources and labels. Doing it twice changes nothing.

    A line that is no memory is told with its number, and then nothing is remembered.

    Example: gx memory export | gx memory import - --workspace ../other/.gx
    """
    from gx.cli.memoryinput import Given, lines_of, text_of

    output.set_mode(quiet=quiet)
    given = Given(namespace=namespace, kind=Kind.fact, label=Label.private, by=_user())
    drafts = lines_of(text_of(file), "stdin" if file == "-" else file, given)
    _write(drafts, workspace, as_json)


def _write(drafts: Iterable[Draft], workspace: Path | None, as_json: bool | None) -> None:
    """Have them remembered, a page at a time; say which they are, and how many were known.

    :raises InputError: if one can't be remembered; then none is. :raises GxError: what the node refuses.
    """
    import msgspec

    from gx.core.memory import Written
    from gx.node.memoryroutes import Remember

    whole = list(drafts)  # before the first is written: a line that is none must leave nothing half remembered
    if not whole:
        raise UsageError("expected something to remember, got nothing but space")
    asking, model = Asking(workspace, makes=True), model_of(None)
    now, told_s = time.time(), time.monotonic()
    uids, known, notes = list[str](), 0, dict[str, None]()
    for page in _pages(one if one.at is not None else msgspec.structs.replace(one, at=now) for one in whole):
        if uids and time.monotonic() - told_s > TELL_EVERY_S:
            told_s = time.monotonic()
            output.note(f"{len(uids):,} of {len(whole):,} so far")
        try:
            written: Written = asking.ask("POST", "", Remember(memories=tuple(page), model=model), Written)
        except GxError:
            if uids:
                output.note(f"{len(uids):,} of {len(whole):,} are remembered; the same command goes on with the rest")
            raise
        uids, known = [*uids, *written.uids], known + written.n_known
        notes |= dict.fromkeys(written.notes)
    if output.wants_json(as_json):
        output.emit([{"uid": uid} for uid in uids], as_json=True)
    tell(notes)
    before = f", {known:,} of them already" if known else ""
    name = f" as {uids[0]}" if len(uids) == 1 else ""
    output.note(f"{counted(len(uids), 'memory', 'memories')} remembered{name}{before}")


def _pages(drafts: Iterable[Draft]) -> Iterator[list[Draft]]:
    page, size = list[Draft](), 0
    for draft in drafts:
        if page and (len(page) == PAGE or size + len(draft.body) > PAGE_CHARS):
            yield page
            page, size = [], 0
        page.append(draft)
        size += len(draft.body)
    if page:
        yield page


def _label(is_shared: bool) -> Label:
    return Label.shared if is_shared else Label.private


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
