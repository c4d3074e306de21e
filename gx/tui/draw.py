"""What the panes of a run show, as lines of styled text. Pure: a model, figures and a width in, lines out."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from gx.core.inert import inert_line
from gx.node.status import RunStatusNow
from gx.tui.chart import short
from gx.tui.glyphs import Glyphs
from gx.tui.graph import Placed, Vertex, placed
from gx.tui.model import RunModel, StepModel
from gx.tui.overview import RunRow
from gx.tui.states import LOOKS, State
from gx.tui.themes import Paint

_BAR = 16
_SHOWN = (State.failed, State.running, State.prepared, State.queued, State.reused, State.cancelled, State.skipped)


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def dollars(usd: float) -> str:
    """`$0.0044`, `$12.30`: small sums have four places."""
    return f"${usd:.2f}" if usd == 0 or usd >= 0.1 else f"${usd:.4f}"


def bar(share: float, width: int, glyphs: Glyphs) -> str:
    """A share of 1 as a bar of `width` cells."""
    parts = len(glyphs.shares)
    filled = round(min(1.0, max(0.0, share)) * width * parts)
    whole, part = divmod(filled, parts)
    text = glyphs.shares[-1] * whole + (glyphs.shares[part - 1] if part else "")
    return text + glyphs.rest * (width - len(text))


def head(
    model: RunModel, row: RunRow | None, now: RunStatusNow | None, *, width: int, paint: Paint, glyphs: Glyphs
) -> list[Text]:
    """Two lines: which run, how it stands, what it may spend; and how far it is."""
    status = now.status if now is not None else model.status or (row.status if row else "")
    name = inert_line(model.name or (row.name if row else ""))
    first = Text.assemble((" gx ", paint["cursor"]), " ", (model.run, paint["bold"]), " ")
    if name and not model.run.startswith(name):
        first.append(f"{name} ", paint["muted"])
    first.append(f"{_status_mark(status, glyphs)} {status}", paint[_STATUS_COLOURS.get(status, "foreground")])
    limits = _limits(model)
    first.append(f"   {limits}" if limits else "", paint["muted"])
    done, total, failed = _totals(model, row, now)
    open_end = "+" if now is not None and not now.progress.is_total_final else ""
    share = done / total if total else 0.0
    second = Text.assemble(" ", (bar(share, _BAR if width < 120 else 2 * _BAR, glyphs), paint["success"]))
    second.append(f" {100 * share:.0f} %  {done:,}/{total:,}{open_end} done", paint["bold"])
    if failed:
        second.append(f"  {glyphs.state(State.failed)} {failed:,} failed", paint["error"])
    for text in _paces(model, now, row):
        second.append(f"  {glyphs.dot} {text}", paint["foreground"])
    return [first, second]


def _totals(model: RunModel, row: RunRow | None, now: RunStatusNow | None) -> tuple[int, int, int]:
    """Done, all, failed: of the fold, or of whoever knows more while the fold still catches up."""
    mine = model.done, model.total, model.counts[State.failed]
    others = [mine]
    if now is not None:
        others.append((now.progress.done, now.progress.total, now.progress.failed))
    elif row is not None:
        others.append((row.done, row.tasks, row.failed))
    return max(others, key=lambda one: (one[1], one[0]))


def _paces(model: RunModel, now: RunStatusNow | None, row: RunRow | None) -> list[str]:
    tokens = max(model.tokens_in + model.tokens_out, 0 if row is None else row.tokens_in + row.tokens_out)
    found = []
    if now is not None and now.tokens_per_s:
        found.append(f"{now.tokens_per_s:,.0f} tokens/s")
    elif tokens:
        found.append(f"{short(tokens)} tokens")
    if now is not None and now.left_s is not None:
        found.append(f"{duration(now.left_s)} to go")
    elif now is not None:
        found.append(f"{duration(now.progress.elapsed_s)} so far")
    elif model.began_s is not None:
        spent = duration(model.last_s - model.began_s)
        found.append(f"took {spent}" if model.is_over else f"{spent} so far")
    return found


def _limits(model: RunModel) -> str:
    found = []
    if model.rented.cap_usd is not None or model.rented.usd:
        cap = "" if model.rented.cap_usd is None else f" of ${model.rented.cap_usd:.2f}"
        found.append(f"{dollars(model.rented.usd)}{cap} spent")
    if model.budget_tokens is not None:
        spent = model.tokens_in + model.tokens_out
        found.append(f"{short(spent)} of {short(model.budget_tokens)} tokens")
    if model.concurrency is not None:
        found.append(f"at most {model.concurrency} at once")
    return ", ".join(found)


def _status_mark(status: str, glyphs: Glyphs) -> str:
    marks = {"running": ("▶", ">"), "finished": ("■", "#"), "paused": ("‖", "="), "waiting": ("?", "?"),
             "interrupted": ("◌", "o"), "stopped": ("◌", "o"), "cancelled": ("−", "-")}  # fmt: skip
    return marks.get(status, ("·", "."))[glyphs.is_ascii]


_STATUS_COLOURS = {"running": "accent", "finished": "success", "paused": "warning", "waiting": "warning",
                   "cancelled": "warning", "stopped": "error", "interrupted": "warning"}  # fmt: skip


def legend(counts: Sequence[int], *, width: int, paint: Paint, glyphs: Glyphs) -> Text:
    """Every state that a task is in, with its shape, its colour and its count, in lines of that width."""
    text, used = Text(), 0
    for state in State:
        if counts[state]:
            entry = f"{glyphs.state(state)} {counts[state]:,} {state.name}"
            if used and used + len(entry) > width:
                text.append("\n")
                used = 0
            text.append(f"{entry}  ", paint[LOOKS[state].colour])
            used += len(entry) + 2
    return text


def steps(model: RunModel, vertices: list[Vertex], *, width: int, paint: Paint, glyphs: Glyphs) -> list[Text]:
    """The recipe's graph: a line a step, with a bar and its counts by state."""
    known = {vertex.name for vertex in vertices}
    extra = [Vertex(step.name, "", ()) for step in model.steps if step.name not in known]
    found = placed([*vertices, *extra], glyphs)
    by_name = {step.name: step for step in model.steps}
    room = max((len(one.prefix) + len(one.vertex.name) for one in found), default=0) + 1
    room = min(room, max(12, width // 3))
    return [_step(one, by_name.get(one.vertex.name), room, width, paint, glyphs) for one in found]


def _step(one: Placed, step: StepModel | None, room: int, width: int, paint: Paint, glyphs: Glyphs) -> Text:
    name = one.vertex.name
    if len(one.prefix) + len(name) > room - 1:
        name = name[: max(1, room - 2 - len(one.prefix))] + glyphs.more
    text = Text.assemble((one.prefix, paint["muted"]), (name, paint["bold"]))
    text.append(" " * max(1, room - len(one.prefix) - len(name)))
    counts = step.counts if step is not None else [0] * len(State)
    total, done = sum(counts), sum(counts[State.succeeded :])
    text.append(bar(done / total if total else 0.0, 8 if width < 70 else _BAR, glyphs), paint["success"])
    text.append(f" {done:,}/{total:,}{'' if step is not None and step.total is not None else '+'} ")
    for state in _SHOWN:
        if counts[state]:
            text.append(f" {glyphs.state(state)} {short(counts[state])}", paint[LOOKS[state].colour])
    note = (step.note if step is not None else "") or one.vertex.what
    also = f"; needs {', '.join(one.also)}" if one.also and one.prefix else ""
    if (left := width - text.cell_len) > 12:
        text.append(shortened(f"  {inert_line(note)}{also}", left, glyphs), paint["muted"])
    return text


def shortened(text: str, cells: int, glyphs: Glyphs) -> str:
    """The text in so many cells at most; one that is cut says so."""
    if cell_len(text) <= cells:
        return text
    return set_cell_size(text, max(0, cells - cell_len(glyphs.more))).rstrip() + glyphs.more
