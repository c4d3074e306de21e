"""`gx memory search`, `ls` and `export`: what is remembered, by a question, the newest first, or all of it in order.

Parse, ask the workspace's node, print: how a search ranks is in `edge.memory.search`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

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
    SinceOpt,
    filter_of,
    model_of,
    reranker_of,
    tell,
)
from gx.cli.place import WorkspaceOpt
from gx.core.memory import Memory, Query
from gx.core.words import counted

PAGE = 500
"""Memories of one request."""
WIDTH = 90
"""Characters of a memory in a table."""
PATH_WIDTH = 4096
"""Characters of a source in a table, which is whole but on one line."""


def register(app: typer.Typer) -> None:
    """Add the verbs to `gx memory`."""
    app.command("search")(search)
    app.command("ls")(ls)
    app.command("export")(export)


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
    output.note(counted(count, "memory", "memories"))


def _listed(one: Memory, text: str) -> dict[str, Any]:
    from gx.cli.memoryinput import shown

    at = datetime.fromtimestamp(one.at, UTC).strftime("%Y-%m-%d %H:%M")
    source = shown(one.source.path or one.source.run or one.source.by, PATH_WIDTH)
    return {"uid": one.uid, "namespace": one.namespace, "kind": one.kind.value, "label": one.label.value, "at": at,
            "source": source, "memory": text}  # fmt: skip
