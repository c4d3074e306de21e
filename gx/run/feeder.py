"""Rows from an input into events: in order, in batches, and each only once.

A thread reads, since files and pipes block; the loop takes what is there. After a restart the same input is read
again, and rows that the log has are passed over by their content, so that nothing is queued twice.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import anyio.to_thread
import msgspec

from gx.core import event as e
from gx.core.errors import InputError
from gx.core.message import Label
from gx.core.view import RunState
from gx.flow.withheld import named_in
from gx.run.contents import Contents
from gx.run.inputs import Row

BATCH_ROWS = 512
"""Rows in one `inputs.read` event, at the most."""
BATCH_BYTES = 8 << 20
"""Content of one batch, after which it is handed over: a commit of large rows must fit DuckDB's memory."""
_AHEAD_ROWS = 2048
_PATIENCE_S = 0.5

Commit = Callable[[list[e.Body], list[e.Blob]], Awaitable[bool]]
"""Takes events and their blobs, and says whether more are wanted."""


async def feed(
    run: RunState, rows: Iterator[Row], contents: Contents, commit: Commit, *, private: frozenset[str] = frozenset()
) -> None:
    """Hand every row to `commit` as `inputs.read` events, then `inputs.ended`, as long as it wants them.

    The content of a row that has one of the `private` fields is private.

    :raises InputError: if the input can't be read on; what was read before stays.
    """
    waiting: queue.Queue[Row | Exception | None] = queue.Queue(_AHEAD_ROWS)
    threading.Thread(target=_read, args=(rows, waiting), name="gx-inputs", daemon=True).start()
    known = Counter(_identity(row.id, row.item, row.error) for row in run.rows)
    index, count = run.next_row, len(run.rows)
    ended = False
    broken: Exception | None = None
    while not ended and broken is None:
        got = await anyio.to_thread.run_sync(_take, waiting, abandon_on_cancel=True)
        made: list[e.InputRow] = []
        blobs: list[e.Blob] = []
        for row in got:
            if row is None:
                ended = True
            elif isinstance(row, Exception):
                broken = row
            else:
                blob = None if row.value is None else contents.put(row.value, _label(row.value, private))
                entry = e.InputRow(
                    index=max(index, row.index),
                    id=row.id if row.id is not None else str(row.index),
                    item=blob.digest if blob else None,
                    error=_placed(row),
                    is_batch=row.is_batch,
                )
                identity = _identity(entry.id, entry.item, entry.error)
                if known[identity] > 0:
                    known[identity] -= 1
                    continue
                made.append(entry)
                count += 1
                blobs.extend((blob,) if blob else ())
                index = entry.index + 1
        bodies: list[e.Body] = [e.InputsRead(run=run.id, rows=tuple(made))] if made else []
        if ended:
            bodies.append(e.InputsEnded(run=run.id, rows=count))
        if bodies and not await commit(bodies, blobs):
            return
    if broken is not None:
        raise broken


def _placed(row: Row) -> str | None:
    """Why the row can't be used, after its line."""
    return row.error if row.error is None or row.line is None else f"line {row.line}: {row.error}"


def _label(value: bytes, private: frozenset[str]) -> Label:
    """Whether a row has a private field, at any depth."""
    is_private = bool(private) and bool(named_in(msgspec.json.decode(value), private))
    return Label.private if is_private else Label.shared


def _identity(row_id: str, item: e.Ref | None, error: str | None) -> tuple[str, str]:
    return row_id, item or error or ""


def _read(rows: Iterator[Row], waiting: queue.Queue[Row | Exception | None]) -> None:
    try:
        for row in rows:
            waiting.put(row)
    except OSError as error:
        waiting.put(InputError(f"the input can't be read on: {error.strerror or error}"))
    except Exception as error:  # noqa: BLE001  raised again where the rows are taken
        waiting.put(error)
    else:
        waiting.put(None)


def _take(waiting: queue.Queue[Row | Exception | None]) -> list[Row | Exception | None]:
    """All rows that are there, up to a batch. None if none came for a while: a thread that waits keeps the process."""
    try:
        got = [waiting.get(timeout=_PATIENCE_S)]
    except queue.Empty:
        return []
    size = _size(got[0])
    while len(got) < BATCH_ROWS and size < BATCH_BYTES and got[-1] is not None:
        try:
            got.append(waiting.get_nowait())
        except queue.Empty:
            break
        size += _size(got[-1])
    return got


def _size(row: Row | Exception | None) -> int:
    return len(row.value) if isinstance(row, Row) and row.value is not None else 0
