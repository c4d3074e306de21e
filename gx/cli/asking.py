"""SQL for those who know only that it is answered: by the workspace's node while one is up, else from its file.

Each question is asked anew, so that nobody holds the log while the reader of a page is slow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from gx.node.workspace import Workspace
    from gx.run.history.past import Ask

LONG_S = 300.0
"""What a question over a large log may take."""
T = TypeVar("T")


def asked(place: Workspace, question: Callable[[Ask], T]) -> T:
    """The answer to some questions that belong together. :raises GxError: if there is no log, or it can't be asked."""
    from gx.node.reader import Reader, ask

    def answer(reader: Reader) -> T:
        def rows(sql: str) -> list[dict[str, Any]]:
            return reader.table(sql, timeout_s=LONG_S, max_rows=None).rows

        return question(rows)

    return ask(place, answer)
