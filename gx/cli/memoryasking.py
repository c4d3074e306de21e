"""What the verbs of `gx memory` share: their flags, the node that they ask, and what it says of its answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gx import output
from gx.core.errors import GxError, NotFound, UsageError, WorkspaceError
from gx.core.memory import Filter, Kind
from gx.core.message import Label

if TYPE_CHECKING:
    from gx.node.workspace import Workspace

MOST_DEATHS = 5
"""Nodes that may go away one after the other in the middle of one answer."""
TELL_EVERY_S = 5.0
JsonOpt = Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or a table on stdout.")]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="No notes.")]
SpaceOpt = Annotated[
    str, typer.Option("--namespace", "-n", help="Where it belongs: memories of one are searched together.")
]
OnlySpaceOpt = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Only of that namespace.", show_default=False)
]
OnlyKindOpt = Annotated[
    list[Kind] | None, typer.Option("--kind", help="Only of that kind; may be given again.", show_default=False)
]
OnlyLabelOpt = Annotated[Label | None, typer.Option("--label", help="Only private or shared ones.", show_default=False)]
OnlySourceOpt = Annotated[
    str, typer.Option("--source", help="Only from that file, folder, run, or whoever wrote it.", show_default=False)
]
SinceOpt = Annotated[str, typer.Option("--since", help="Only since then: 2031-05-01, or 2d ago.", show_default=False)]
SourceOpt = Annotated[
    str, typer.Option("--source", help="Who or what says so; by default your name.", show_default=False)
]
SharedOpt = Annotated[
    bool, typer.Option("--shared", help="May leave this machine in a prompt; by default a memory never does.")
]
ModelOpt = Annotated[
    str | None, typer.Option("--model", help="The embedding model, such as minilm.", show_default=False)
]


RerankOpt = Annotated[
    str | None, typer.Option("--rerank", help="The reranker that orders what is found, or none.", show_default=False)
]


class Asking:
    """Asks the workspace's node, which is started where none is up, and again where it went away meanwhile.

    :raises NotFound: if nothing can be remembered there, as there is no log, unless it `makes` one.
    """

    def __init__(self, workspace: Path | None, *, makes: bool) -> None:
        from gx.cli.place import workspace_of

        self.place: Workspace = workspace_of(workspace)
        if not makes and not self.place.has_log():
            raise NotFound(f"nothing is remembered in {self.place.folder}", hint='gx memory add "…" begins it')
        self.place.make()

    def ask(self, method: str, path: str, body: Any, kind: Any) -> Any:
        """The node's answer. What is asked is done once, however often it is asked for.

        :raises GxError: what the node refuses, or that it went away again and again.
        """
        from gx.node.call import NodeGone
        from gx.node.start import ensure

        for _ in range(MOST_DEATHS):
            try:
                return ensure(self.place.folder).ask(method, f"/v1/memory{path}", body, kind=kind, timeout_s=None)
            except NodeGone as error:
                last = error.why
        raise WorkspaceError(
            f"{MOST_DEATHS} nodes went away one after the other; the last time: {last}",
            code="workspace.node",
            hint="`gx doctor` may say why; the same command goes on, and nothing is remembered twice",
        )


def filter_of(namespace: str | None, kinds: list[Kind] | None, label: Label | None, source: str, since: str) -> Filter:
    from gx.cli.memoryinput import is_there, path_of

    path = path_of(source)
    is_path = bool(source) and (source.startswith(("/", "./", "../", "~/")) or is_there(path))
    return Filter(
        namespace=namespace,
        kinds=tuple(kinds or ()),
        label=label,
        source=str(path.resolve()) if is_path else source,
        since=_since(since),
    )


def model_of(flag: str | None) -> str | None:
    """The embedding model that was asked for, by the flag or by a setting; the path of a file is made absolute."""
    from gx import settings

    found = settings.explain()["memory_model"]
    name = flag or (found.value if found.source != "default" and found.value != "none" else None)
    if name is not None and name.startswith((".", "~", "/")):
        from gx.cli.memoryinput import path_of

        return str(path_of(name).resolve())
    return name


def reranker_of(flag: str | None) -> str | None:
    """The reranker that was asked for, by the flag or by a setting; `None` leaves it to the node."""
    from gx import settings
    from gx.cli.memoryinput import path_of

    if flag is not None:
        return str(path_of(flag).absolute()) if settings.is_path(flag) else flag
    found = settings.explain()["memory_reranker"]
    return None if found.source == "default" else str(found.value)


def tell(notes: Iterable[str]) -> None:
    for note in notes:
        output.note(f"note: {note}")


@contextmanager
def told_how_far(asking: Asking) -> Iterator[None]:
    """As long as the block takes, it is noted every few seconds how many memories have a vector."""
    from gx.core.memory import MemoryStats
    from gx.node.call import NodeGone, find

    is_over = threading.Event()

    def tell_it() -> None:
        told = ""
        while not is_over.wait(TELL_EVERY_S):
            with suppress(NodeGone, GxError):  # whoever waits for the answer says what is wrong
                if (node := find(asking.place.folder)) is None:
                    continue
                stats: MemoryStats = node.ask("GET", "/v1/memory", kind=MemoryStats)
                tell(stats.notes)
                now = f"{stats.vectors:,} of {stats.memories:,} memories have a vector so far"
                if stats.model and stats.vectors < stats.memories and now != told and not is_over.is_set():
                    output.note(told := now)

    threading.Thread(target=tell_it, daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _since(text: str) -> float | None:
    """The instant of a date, or of a duration before now. :raises UsageError: if it is neither."""
    from gx.flow.scalars import seconds_of

    if not text:
        return None
    if (found := seconds_of(text.removesuffix("ago").strip())) is not None:
        return time.time() - found
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since: expected a date such as 2031-05-01 or a duration such as 2d, got {text!r}"
        ) from None
