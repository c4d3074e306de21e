"""`gx memory eval`: how often searches find what they should, by words, by vectors, by both, and reranked.

Documents are remembered in a workspace of their own that goes afterwards, and questions are asked whose answers are
known to stand in them. What is found is compared by text; nothing here ranks anything.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gx import output
from gx.cli.memoryasking import Asking, JsonOpt, ModelOpt, QuietOpt, RerankOpt, model_of, reranker_of, tell
from gx.cli.memoryinput import is_there
from gx.core.errors import InputError, UsageError
from gx.core.memory import Found, Hit, Kind, Query
from gx.core.message import Label

NAMESPACE = "eval"
DEEP = 100
"""Hits that hold the first of each half, whatever the other half says of them."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, the document that answers it, below the folder, and the words of it that do."""

    question: str
    path: str
    passage: str


def register(app: typer.Typer) -> None:
    """Add the verb to `gx memory`."""
    app.command("eval")(evaluate)


def evaluate(
    folder: Annotated[
        Path | None, typer.Argument(help="Documents; by default those that come with gx.", show_default=False)
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option("--questions", help='JSON lines: {"question", "path", "passage"}.', show_default=False),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="It is found if it is among the first so many.", min=1, max=50)] = 5,
    model: ModelOpt = None,
    rerank: RerankOpt = None,
    as_json: JsonOpt = None,
    quiet: QuietOpt = False,
) -> None:
    """Measure what searches find: full text, vectors and both, on questions whose answers are known.

    With a reranker, by --rerank or the setting `memory_reranker`, also what it makes of both.

    Nothing of your own memory is used or changed.

    Example: gx memory eval
    """
    from gx.cli.memoryfiles import add_documents
    from gx.cli.memoryinput import Given
    from gx.cli.recipes import bundle
    from gx.node.start import send_home
    from gx.settings import NONE

    output.set_mode(quiet=quiet)
    if (folder is None) != (questions is None):
        raise UsageError("expected a folder and its --questions, or neither")
    folder, questions = folder or bundle() / "docs", questions or bundle() / "docs-questions.jsonl"
    asked = _questions(questions, folder)
    with tempfile.TemporaryDirectory(prefix="gx-eval-") as place:
        workspace = Path(place) / ".gx"
        given = Given(namespace=NAMESPACE, kind=Kind.chunk, label=Label.private, by="eval")
        asking = Asking(workspace, makes=True)
        try:
            add_documents([str(folder)], given, workspace, as_json=False, model=model_of(model))
            rows = _measured(asking, asked, folder.resolve(), k, model_of(model), reranker_of(rerank) or NONE)
        finally:
            send_home(asking.place.folder)
    output.emit(rows, as_json=as_json)


def _measured(
    asking: Asking, questions: Sequence[Question], folder: Path, k: int, model: str | None, reranker: str
) -> list[dict[str, object]]:
    from gx.node.memoryroutes import Search
    from gx.settings import NONE

    def search(text: str, k: int, *, is_text_only: bool = False, by: str = NONE) -> Found:
        query = Query(text=text, k=k, namespace=NAMESPACE, is_text_only=is_text_only)
        found: Found = asking.ask("POST", "/search", Search(query=query, model=model, reranker=by), Found)
        return found

    counts = {"full text": 0, "vectors": 0, "both": 0}
    notes: dict[str, None] = {}
    for one in questions:
        by_text, both, deep = (
            search(one.question, k, is_text_only=True),
            search(one.question, k),
            search(one.question, DEEP),
        )
        notes |= dict.fromkeys(both.notes)
        nearest = [hit for hit in deep.hits if hit.vector_rank is not None and hit.vector_rank <= k]
        for how, hits in (("full text", by_text.hits), ("vectors", nearest), ("both", both.hits)):
            counts[how] += any(_answers(hit, one, folder) for hit in hits)
        if reranker != NONE:
            reranked = search(one.question, k, by=reranker).hits
            counts["reranked"] = counts.get("reranked", 0) + any(_answers(hit, one, folder) for hit in reranked)
    tell(notes)
    total = len(questions)
    return [{"search": how, f"hit@{k}": n, "of": total, "share": round(n / total, 3)} for how, n in counts.items()]


def _answers(hit: Hit, question: Question, folder: Path) -> bool:
    """Whether the passage stands in what was found."""
    is_there = hit.memory.source.path == str(folder / question.path)
    return is_there and _flat(question.passage) in _flat(hit.memory.body)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _questions(file: Path, folder: Path) -> list[Question]:
    """:raises InputError: naming the line that is no question, or one of a document that isn't there."""
    try:
        lines = file.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} can't be read: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            one = msgspec.json.decode(line, type=Question)
        except msgspec.MsgspecError as error:
            raise InputError(f"{file}:{number}: expected a question, a path and a passage: {error}") from None
        if not one.question.strip() or not one.passage.strip():
            raise InputError(f"{file}:{number}: expected a question and a passage, got nothing but space")
        if not is_there(folder / one.path):
            raise InputError(f"{file}:{number}: there is no document {one.path} in {folder}")
        found.append(one)
    if not found:
        raise InputError(f"{file}: expected questions, got nothing")
    return found
