"""SQL for those who know only that it is answered: by the workspace's node while one is up, else from its file.

Each question is asked anew, so that nobody holds the log while the reader of a page is slow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from gx.node.workspace import Workspace
    from gx.run.history.past import Ask

LONG_S = 300.0
"""What a question over a large log may take."""
T = TypeVar("T")


def asked(place: Workspace, question: Callable[[Ask], T], *, runs: Collection[str] = ()) -> T:
    """The answer to some questions that belong together, about `runs`: if one of these was archived, of the archives.

    :raises GxError: if there is no log, or it can't be asked.
    """
    from gx.node.reader import Reader, ask
    from gx.run.history.past import find_run

    def answer(reader: Reader) -> T:
        def rows(sql: str) -> list[dict[str, Any]]:
            return reader.table(sql, timeout_s=LONG_S, max_rows=None).rows

        for run in runs:
            find_run(rows, run)
        return question(rows)

    return ask(place, answer)
