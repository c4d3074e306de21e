"""`gx memory add`, `import`, `search`, `ls`, `export`, `rm`: what agents are to remember, and what is to be forgotten.

Parse, ask the workspace's node, print: what a memory is is said in `gx.core.memory`. How the memory is kept in order is
in `gx.cli.memorykeep`.
"""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gx import output
from gx.cli.memoryasking import (
    Asking,
    JsonOpt,
    ModelOpt,
    OnlyKindOpt,
    OnlyLabelOpt,
    OnlySourceOpt,
    OnlySpaceOpt,
    QuietOpt,
    RerankOpt,
    SharedOpt,
    SinceOpt,
    SourceOpt,
    SpaceOpt,
    filter_of,
    model_of,
    reranker_of,
    tell,
)
from gx.cli.place import WorkspaceOpt
from gx.core.errors import UsageError, WorkspaceError
from gx.core.memory import DEFAULT_NAMESPACE, Draft, Kind, Memory, Query
from gx.core.message import Label
from gx.output import ExitCode

if TYPE_CHECKING:
    from gx.node.workspace import Workspace

HELP = "What agents remember: write it, search it, forget it."
PAGE = 500
"""Memories of one request."""
PAGE_CHARS = 8 << 20
TELL_EVERY_S = 5.0
LEAVING_S = 10.0
"""How long a node that was sent home may take to let the log go."""
WIDTH = 90
"""Characters of a memory in a table."""
PATH_WIDTH = 4096
"""Characters of a source in a table, which is whole but on one line."""


def register(app: typer.Typer) -> None:
    """Add the verbs to `gx memory`."""
    app.command("add")(add)
    app.command("search")(search)
    app.command("ls")(ls)
    app.command("rm")(rm)
    app.command("export")(export)
    app.command("import")(import_)


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

    Example: gx memory export | gx memory import - --workspace ../other/.gx
    """
    from gx.cli.memoryinput import Given, lines_of, text_of

    output.set_mode(quiet=quiet)
    given = Given(namespace=namespace, kind=Kind.fact, label=Label.private, by=_user())
    drafts = lines_of(text_of(file), "stdin" if file == "-" else file, given)
    _write(drafts, workspace, as_json)


def search(
    text: Annotated[str, typer.Argument(help="A question, or words.", show_default=False)],
    k: Annotated[int, typer.Option("-k", help="How many.")] = 8,
    namespace: OnlySpaceOpt = None,
    kind: OnlyKindOpt = None,
    label: OnlyLabelOpt = None,
    source: OnlySourceOpt = "",
    since: SinceOpt = "",
    min_score: Annotated[float, typer.Option("--min-score", help="Leave out what scores less, 0 to 1.")] = 0.0,
    min_similarity: Annotated[
        float | None, typer.Option("--min-similarity", help="A smaller cosine finds nothing.", show_default=False)
    ] = None,
    words_only: Annotated[bool, typer.Option("--words", help="By words alone, without the embedding model.")] = False,
    model: ModelOpt = None,
    rerank: RerankOpt = None,
    as_json: JsonOpt = None,
    quiet: QuietOpt = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """Find what is remembered, by its words and by what they mean: two rankings, put together.

    `score` is 1 for what is first in both. `words` (BM25) and `similarity` (cosine) say what each half found it by.
    A reranker reads the question with each of the first, four times as many as are asked for and 50 at most, and puts
    them in the order of `relevance`, its own score; --min-score still goes by `score`, and decides what it reads.

    Example: gx memory search "who likes it short?" -n people -k 3
    """
    from gx.cli.memoryinput import row_of, shown
    from gx.core.memory import Found
    from gx.node.memoryroutes import Search

    output.set_mode(quiet=quiet)
    wanted = filter_of(namespace, kind, label, source, since)
    query = Query(
        text=text,
        k=k,
        min_score=min_score,
        min_similarity=min_similarity,
        is_text_only=words_only,
        namespace=wanted.namespace,
        kinds=wanted.kinds,
        label=wanted.label,
        source=wanted.source,
        since=wanted.since,
    )
    asked = Search(query=query, model=model_of(model), reranker=reranker_of(rerank))
    found: Found = Asking(workspace, makes=False).ask("POST", "/search", asked, Found)
    tell(found.notes)
    if output.wants_json(as_json):
        names = ("score", "by_text", "by_vector", "text_rank", "bm25", "vector_rank", "similarity", "relevance",
                 "fused_rank")  # fmt: skip
        output.emit(
            [row_of(hit.memory) | {name: getattr(hit, name) for name in names} for hit in found.hits], as_json=True
        )
    else:
        rows = [
            {
                **({"relevance": hit.relevance} if found.reranker else {}),
                "score": hit.score,
                "words": hit.bm25,
                "similarity": hit.similarity,
                "uid": hit.memory.uid,
                "namespace": hit.memory.namespace,
                "memory": shown(hit.memory.body, WIDTH),
            }
            for hit in found.hits
        ]
        output.emit(rows, as_json=False)
    if not found.hits:
        output.note("nothing was found")


def ls(
    namespace: OnlySpaceOpt = None,
    kind: OnlyKindOpt = None,
    label: OnlyLabelOpt = None,
    source: OnlySourceOpt = "",
    since: SinceOpt = "",
    limit: Annotated[int, typer.Option("--limit", help="How many.", min=1, max=1000)] = 20,
    as_json: JsonOpt = None,
    quiet: QuietOpt = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """List what is remembered, the newest first.

    Example: gx memory ls -n people --limit 5
    """
    from gx.cli.memoryinput import row_of, shown
    from gx.node.memoryroutes import Listing, MemoryPage

    output.set_mode(quiet=quiet)
    asked = Listing(filter=filter_of(namespace, kind, label, source, since), limit=limit, is_newest=True)
    found: MemoryPage = Asking(workspace, makes=False).ask("POST", "/list", asked, MemoryPage)
    if output.wants_json(as_json):
        output.emit(map(row_of, found.memories), as_json=True)
    else:
        output.emit([_listed(one, shown(one.body, WIDTH)) for one in found.memories], as_json=False)
    if not found.memories:
        output.note("nothing is remembered, or nothing of that kind")


def rm(
    uids: Annotated[
        list[str] | None, typer.Argument(metavar="UID…", help="Memories, by the starts of their names.")
    ] = None,
    namespace: OnlySpaceOpt = None,
    kind: OnlyKindOpt = None,
    source: OnlySourceOpt = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: JsonOpt = None,
    quiet: QuietOpt = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """Forget for good: what it said goes from the memory, from its indexes, and from the log, which still verifies.

    Runs keep the prompts that they were given it in; those are named, and `gx erase` erases them.

    Name memories, or say which: all of a namespace, of a kind, from a file or a folder.

    Example: gx memory rm --source ~/notes/old --yes
    """
    from gx.node.memoryroutes import Forget, Forgot

    output.set_mode(quiet=quiet)
    has_filter = namespace is not None or bool(kind) or bool(source)
    if not uids and not has_filter:
        raise UsageError("which memories?", hint="name them, or a --namespace, --kind or --source")
    if uids and has_filter:
        raise UsageError("expected names or a filter, got both")
    wanted = filter_of(namespace, kind, None, source, "") if has_filter else None
    asking = Asking(workspace, makes=False)
    what = f"{len(uids)} memories" if uids else "all memories that are meant"
    if not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError("something is to go for good, and there is no terminal to ask on", hint="add --yes")
        if not typer.confirm(f"Forget {what} for good?", err=True):
            output.note("nothing was forgotten")
            raise typer.Exit(ExitCode.error)
    found: Forgot = asking.ask("POST", "/forget", Forget(uids=tuple(uids or ()), filter=wanted), Forgot)
    output.emit([{"uid": uid} for uid in found.uids], as_json=as_json)
    if found.uids:
        _erase(asking.place, found.uids)
    else:
        output.note("nothing like that is remembered, so nothing was forgotten")


def export(
    namespace: OnlySpaceOpt = None,
    kind: OnlyKindOpt = None,
    label: OnlyLabelOpt = None,
    source: OnlySourceOpt = "",
    quiet: QuietOpt = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """Write what is remembered as JSON lines, in the order of its writing; `gx memory import` reads them.

    Example: gx memory export -n people > people.jsonl
    """
    from gx.cli.memoryinput import row_of
    from gx.node.memoryroutes import Listing, MemoryPage

    output.set_mode(quiet=quiet)
    asking, wanted = Asking(workspace, makes=False), filter_of(namespace, kind, label, source, "")
    after: int | None = -1
    count = 0
    while after is not None:
        page: MemoryPage = asking.ask("POST", "/list", Listing(filter=wanted, after=after, limit=PAGE), MemoryPage)
        output.emit(map(row_of, page.memories), as_json=True)
        count, after = count + len(page.memories), page.next
    output.note(f"{count:,} memories")


# ── within ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _write(drafts: Iterable[Draft], workspace: Path | None, as_json: bool | None) -> None:
    """Have them remembered, a page at a time; say which they are, and how many were known."""
    import msgspec

    from gx.core.memory import Written
    from gx.node.memoryroutes import Remember

    asking, model = Asking(workspace, makes=True), model_of(None)
    now, told_s = time.time(), time.monotonic()
    uids, known, notes = list[str](), 0, dict[str, None]()
    timed = (one if one.at is not None else msgspec.structs.replace(one, at=now) for one in drafts)
    for page in _pages(timed):
        if uids and time.monotonic() - told_s > TELL_EVERY_S:
            told_s = time.monotonic()
            output.note(f"{len(uids):,} so far")
        written: Written = asking.ask("POST", "", Remember(memories=tuple(page), model=model), Written)
        uids, known = [*uids, *written.uids], known + written.n_known
        notes |= dict.fromkeys(written.notes)
    if not uids:
        raise UsageError("expected something to remember, got nothing but space")
    if output.wants_json(as_json):
        output.emit([{"uid": uid} for uid in uids], as_json=True)
    tell(notes)
    before = f", {known:,} of them already" if known else ""
    name = f" as {uids[0]}" if len(uids) == 1 else ""
    output.note(f"{len(uids):,} {'memory' if len(uids) == 1 else 'memories'} remembered{name}{before}")


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


def _erase(place: Workspace, uids: Sequence[str]) -> None:
    """Have what was forgotten go from the log's file too, now if nobody writes it; say which runs still have it."""
    from gx.node.start import send_home
    from gx.run.log.erase import erased_before
    from gx.run.log.erase_forgotten import erase_forgotten

    count = len(uids)
    try:
        send_home(place.folder)
        with place.exclusive(wait_s=LEAVING_S) as log:
            sql = "SELECT DISTINCT run FROM recalled WHERE uid = any(?::VARCHAR[]) ORDER BY run"
            runs = [run for (run,) in log.file.ask(sql, [list(uids)]) if run not in erased_before(log)]
            erase_forgotten(log)
    except WorkspaceError as error:
        output.note(f"{count:,} forgotten; the log's file holds what they said until its node ends: {error.message}")
        return
    output.note(f"{count:,} forgotten, and erased from the log")
    if runs:
        which = f"{len(runs):,} runs were" if len(runs) > 1 else "a run was"
        output.note(f"note: {which} given some of it, and its prompts hold that still; to erase those as well:")
        for run in runs:
            output.note(f"  gx erase {run}")


def _listed(one: Memory, text: str) -> dict[str, Any]:
    from gx.cli.memoryinput import shown

    at = datetime.fromtimestamp(one.at, UTC).strftime("%Y-%m-%d %H:%M")
    source = shown(one.source.path or one.source.run or one.source.by, PATH_WIDTH)
    return {"uid": one.uid, "namespace": one.namespace, "kind": one.kind.value, "label": one.label.value, "at": at,
            "source": source, "memory": text}  # fmt: skip


def _label(is_shared: bool) -> Label:
    return Label.shared if is_shared else Label.private


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
