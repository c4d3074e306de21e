"""A question in SQL and its answer as a table: what `gx sql` answers, without leaving the run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import DataTable, Input, Static

from gx.core.errors import GxError
from gx.core.inert import inert_line
from gx.tui.intents import told

if TYPE_CHECKING:
    from gx.core.tables import Table
    from gx.tui.app import Monitor

MOST_ROWS = 1000
_CELL = 200
FIRST = "select step, status, count(*) n, sum(tok_out) tokens from tasks where run = '{run}' group by all order by all"


class Sql(Vertical):
    """Enter asks; the answer has at most `MOST_ROWS` rows, and says if there are more."""

    app: Monitor

    def compose(self) -> ComposeResult:
        yield Input(id="question", compact=True, placeholder="select … from tasks, attempts, results, events, spend …")
        yield DataTable(zebra_stripes=False, cursor_type="row")
        yield Static(id="answered", classes="bottom")

    def begin(self) -> None:
        """Put the cursor where the question is written."""
        question = self.query_one("#question", Input)
        if not question.value:
            question.value = FIRST.format(run=self.app.model.run)
        question.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._ask(event.value)

    @work(thread=True, exclusive=True, group="sql")
    def _ask(self, sql: str) -> None:
        try:
            table = self.app.feed.table(sql, MOST_ROWS)
        except GxError as error:
            self.app.call_from_thread(self._say, inert_line(told(error)), "error")
            return
        self.app.call_from_thread(self._show, table)

    def _show(self, table: Table) -> None:
        found: DataTable[Text] = self.query_one(DataTable)
        found.clear(columns=True)
        found.add_columns(*(Text(inert_line(name)) for name in table.columns))
        found.add_rows([Text(shown(row[name])) for name in table.columns] for row in table.rows)
        self._say(f"{len(table.rows):,} rows" + (", and there are more" if table.is_cut else ""), "muted")

    def _say(self, text: str, colour: str) -> None:
        self.query_one("#answered", Static).update(Text(f" {text}", self.app.paint[colour]))


def shown(value: Any) -> str:
    """A value in a cell: on one line, harmless, not endless."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return inert_line(text[:_CELL]) + ("…" if len(text) > _CELL else "")
