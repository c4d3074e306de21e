"""What the log says of the memory, applied to the tables: a memory put or dropped, a model chosen.

Each function is given a connection within a transaction. Invariants: a vector belongs to what its memory says now; what
is dropped is overwritten, its vector too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edge.memory import rows, schema
from edge.memory.schema import ask
from gx.core.memory import Change, Chosen, Drop, Put

if TYPE_CHECKING:
    import apsw

FLOAT_BYTES = 4


def apply(con: apsw.Connection, changes: Sequence[Change], chosen: Chosen | None) -> Chosen | None:
    """Apply changes in their order; the model that is `chosen` afterwards."""
    for change in changes:
        match change:
            case Put():
                _put(con, change, chosen)
            case Drop(uid):
                _drop(con, uid, chosen)
            case Chosen():
                _choose(con, change)
                chosen = change
    return chosen


def note(con: apsw.Connection, **values: Any) -> None:
    """Keep values of the file as a whole, by their names."""
    for name, value in values.items():
        con.execute("INSERT OR REPLACE INTO meta(name, value) VALUES (?, ?)", (name, value))


def _put(con: apsw.Connection, put: Put, chosen: Chosen | None) -> None:
    """Keep a memory; one of that name is replaced, and stands where it stood. Its vector stays where it may."""
    one, row = put.memory, rows.row_of(put)
    found = ask(con, "SELECT id, seq, heading, model FROM memory WHERE uid = ?", (one.uid,))
    for id, seq, heading, model in found:
        row = (*row[:5], seq, *row[6:])
        if heading == one.source.heading:  # what is said is in the name, so what is embedded is the same
            con.execute(f"UPDATE memory SET {', '.join(f'{name} = ?' for name in rows.COLUMNS)} WHERE id = {id}", row)
            if model is not None:
                sql = "UPDATE memory_vec SET label = ?, at = ? WHERE id = ?"
                con.execute(sql, (one.label.value, one.at, id))
            return
        _drop(con, one.uid, chosen)
    marks = ", ".join("?" * len(rows.COLUMNS))
    con.execute(f"INSERT INTO memory({', '.join(rows.COLUMNS)}) VALUES ({marks})", row)


def _drop(con: apsw.Connection, uid: str, chosen: Chosen | None) -> None:
    """Delete a memory; its vector is overwritten first, since sqlite-vec leaves a deleted one in the file."""
    for id, model in ask(con, "SELECT id, model FROM memory WHERE uid = ?", (uid,)):
        if model is not None and chosen is not None:
            zeros = bytes(FLOAT_BYTES * chosen.dimensions)
            con.execute("UPDATE memory_vec SET e = ? WHERE id = ?", (zeros, id))
            con.execute("DELETE FROM memory_vec WHERE id = ?", (id,))
        con.execute("DELETE FROM memory WHERE id = ?", (id,))


def _choose(con: apsw.Connection, chosen: Chosen) -> None:
    con.execute("DROP TABLE IF EXISTS memory_vec")
    con.execute("UPDATE memory SET model = NULL WHERE model IS NOT NULL")
    con.execute(schema.vectors_table(chosen.dimensions))
    note(con, name=chosen.name, model=chosen.model, dimensions=chosen.dimensions)
