"""`gx diff`: two runs side by side. What differs is no error, so the exit code says only whether they could be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gx import output
from gx.cli.place import WorkspaceOpt

if TYPE_CHECKING:
    from gx.core.event import Ref
    from gx.node.workspace import Workspace
    from gx.run.history.diff import Brief, Row, Totals
    from gx.run.history.past import Past

JsonOpt = Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or text on stdout.")]
_WIDE = 60
"""Characters of a value that are shown on a terminal."""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("diff")(diff)


def diff(
    left: Annotated[str, typer.Argument(help="A run, by its id or the start of it.", show_default=False)],
    right: Annotated[str, typer.Argument(help="The run to compare it with.", show_default=False)],
    as_json: JsonOpt = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Compare two runs row by row, and what each took: tokens, seconds, failures, cost.

    In JSON, a line a row (same, changed, only in left, only in right), then one with the totals. The exit code is 0
    whether they differ or not.

    Example: gx diff triage-k3m9xq triage-7hq2ab | jq -c .changes
    """
    from gx.cli.asking import asked
    from gx.cli.place import workspace_of
    from gx.run.history.diff import totals_of
    from gx.run.history.past import look_at

    place = workspace_of(workspace)
    one, other = (asked(place, lambda ask: look_at(ask, start)) for start in (left, right))  # noqa: B023
    is_json, counts = output.wants_json(as_json), Counter[str]()
    for row in _rows(place, one, other):
        counts[row.verdict] += 1
        if is_json:
            _write(json.dumps(_as_dict(row), ensure_ascii=False))
        elif row.verdict != "same":
            _write(_as_text(row))
    totals = [asked(place, lambda ask: totals_of(ask, past), runs=[past.run]) for past in (one, other)]  # noqa: B023
    if is_json:
        _write(json.dumps(_totals_line(counts, *totals)))
    else:
        _show_totals(counts, *totals)
    for past in (one, other):
        if past.status != "finished":
            output.note(f"{past.run} is {past.status}: its rows are those that there are so far")


def _rows(place: Workspace, one: Past, other: Past) -> Iterator[Row]:
    from gx.cli.asking import asked
    from gx.run.history.diff import chunks_of, compare, pairs_of, refs_of
    from gx.run.history.past import contents

    for chunk in chunks_of(pairs_of(_briefs(place, one), _briefs(place, other))):
        refs = [ref for pair in chunk for ref in refs_of(*pair)]
        found: dict[Ref, bytes] = {}
        for past in (one, other):  # one of them may be archived
            if left := [ref for ref in refs if ref not in found]:
                found |= asked(place, lambda ask: contents(ask, left), runs=[past.run])
        yield from (compare(*pair, found) for pair in chunk)


def _briefs(place: Workspace, past: Past) -> list[Brief]:
    from gx.cli.asking import asked
    from gx.run.history.diff import briefs_after
    from gx.run.history.past import Place

    found: list[Brief] = []
    after: Place | None = Place()
    while after is not None:
        here = after
        more, after = asked(place, lambda ask: briefs_after(ask, past, here), runs=[past.run])  # noqa: B023
        found += more
    return found


# ── showing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _as_dict(row: Row) -> dict[str, Any]:
    matrix = {"matrix": row.matrix} if row.matrix else {}
    found: dict[str, Any] = {"kind": "row", "id": row.id, "step": row.step, **matrix, "verdict": row.verdict}
    if row.changes:
        found["changes"] = [{"field": c.field, "left": c.left, "right": c.right} for c in row.changes]
    return found


def _as_text(row: Row) -> str:
    matrix = "".join(f" {name}={value}" for name, value in (row.matrix or {}).items())
    head = f"{_printable(row.id)}{_printable(matrix)}: {row.verdict}"
    return "\n".join([head, *(f"  {_printable(c.field)}: {_shown(c.left)} → {_shown(c.right)}" for c in row.changes)])


def _shown(value: Any) -> str:
    text = "(none)" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    flat = " ".join(_printable(text).split())
    return flat if len(flat) <= _WIDE else flat[: _WIDE - 1] + "…"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


_COUNTED = ("same", "changed", "only in left", "only in right")


def _totals_line(counts: Counter[str], left: Totals, right: Totals) -> dict[str, Any]:
    import msgspec

    counted = {name.replace(" ", "_"): counts[name] for name in _COUNTED}
    return {"kind": "totals", **counted, "left": msgspec.to_builtins(left), "right": msgspec.to_builtins(right)}


def _show_totals(counts: Counter[str], left: Totals, right: Totals) -> None:
    names = {"tasks": "tasks", "failed": "failed", "from_log": "from the log", "tokens_in": "tokens in",
             "tokens_out": "tokens out", "seconds": "seconds", "usd": "USD"}  # fmt: skip
    if counts.total() > counts["same"]:
        _write("")
    rows = [
        {"": shown, left.run: _figure(left, name), right.run + " ": _figure(right, name)}
        for name, shown in names.items()
    ]
    output.emit(rows, as_json=False)
    told = ", ".join(f"{counts[name]:,} {name}" for name in _COUNTED if counts[name])
    _write(f"\nrows: {told or 'none in either run'}")


def _figure(totals: Totals, name: str) -> str:
    value, digits = getattr(totals, name), 4 if name == "usd" else 2
    return f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}"


def _write(text: str) -> None:
    output.write(text + "\n")
