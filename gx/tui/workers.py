"""Who works: the benches with their slots, the containers with their age and cost, and what each is at. Pure.

A slot's sequence is as long as the bench said last, with what was written since: figures of a preview, a second old.
"""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import set_cell_size
from rich.text import Text

from gx.core.inert import inert_line
from gx.node.previews import Preview, RunningNow
from gx.node.status import BenchNow, NodeStatus
from gx.tui.chart import ago, short
from gx.tui.draw import bar, duration, shortened
from gx.tui.glyphs import Glyphs
from gx.tui.model import RunModel
from gx.tui.rented import Container
from gx.tui.states import State
from gx.tui.themes import Paint

MOST_LISTED = 1000
"""Tasks at a time that are listed; a bench has 256 slots at most, and containers have theirs."""
_ROW_CELLS = (10, 24)
"""How wide the names of the rows are, from least to most."""
_FIGURES_CELLS = 43
"""What stands beside a name: the phase, two figures, how long, and the step and its worker."""


class Seat(NamedTuple):
    """A line of the list; `place` is the task that it is about, None where it is about none."""

    text: Text
    place: int | None = None


def seats(
    model: RunModel,
    status: NodeStatus | None,
    running: RunningNow | None,
    *,
    now_s: float,
    width: int,
    paint: Paint,
    glyphs: Glyphs,
) -> list[Seat]:
    """The benches, the containers, then what runs, a line each, under the names of the columns."""
    found = [Seat(_bench(bench, width, paint, glyphs)) for bench in (status.benches if status is not None else ())]
    rented = model.rented
    found += [Seat(_container(one, rented.is_rehearsal, now_s, paint)) for one in rented.containers.values()]
    if model.running:
        least, most = _ROW_CELLS
        room = max(least, min(most, width - _FIGURES_CELLS))
        head = f"  {'row':<{room}} {'phase':<8} {'tokens':>6} {'tok/s':>5} {'for':>4}  step, worker"
        seen = {one.task: one for one in running.tasks} if running is not None else {}
        found.append(Seat(Text(head, paint["muted"])))
        found += [
            Seat(_task(model, place, seen.get(model.ids[place]), room, now_s, paint, glyphs), place)
            for place in list(model.running)[:MOST_LISTED]
        ]
    return found or [Seat(Text("no worker is up", paint["muted"]))]


def cut(lines: list[Seat], height: int, paint: Paint, glyphs: Glyphs) -> list[Text]:
    """What of them fits in `height` lines; the last one says how many don't."""
    if len(lines) <= height:
        return [line.text for line in lines]
    kept = max(0, height - 1)
    more = Text(f"{glyphs.more} {len(lines) - kept} more: 3 shows them", paint["muted"])
    return [*(line.text for line in lines[:kept]), more]


def _bench(bench: BenchNow, width: int, paint: Paint, glyphs: Glyphs) -> Text:
    """As many of its figures as fit."""
    share = bench.slots_busy / bench.slots if bench.slots else 0.0
    text = Text.assemble((f"{bench.worker} ", paint["bold"]), (bar(share, 8, glyphs), paint["accent"]))
    text.append(f" {bench.slots_busy}/{bench.slots} slots")
    paces = ((bench.written_tokens_per_s, "decode"), (bench.prompt_tokens_per_s, "prefill"))
    figures = [f"{what} {pace:,.0f} tok/s" for pace, what in paces if pace]
    figures += [f"{100 * bench.cached_share:.0f} % cached"] if bench.cached_share else []
    for figure in figures:
        if text.cell_len + len(figure) + 3 <= width:
            text.append(f" {glyphs.dot} {figure}", paint["foreground"])
    return text


def _container(one: Container, is_rehearsal: bool, now_s: float, paint: Paint) -> Text:
    cost = f"${one.usd:.4f}" + (" in a rehearsal" if is_rehearsal else "")
    text = Text.assemble((f"{one.gpu} ", paint["bold"]), (one.state, paint["accent"]))
    return text.append(f"  {duration(one.age_s(now_s))}  {cost}  {inert_line(one.name or one.id)}", paint["muted"])


def _task(
    model: RunModel, place: int, seen: Preview | None, room: int, now_s: float, paint: Paint, glyphs: Glyphs
) -> Text:
    worker, since_s = model.running[place]
    phase, tokens, pace = _standing(seen)
    text = Text.assemble((f"{glyphs.state(State.running)} ", paint["accent"]))
    text.append(f"{set_cell_size(shortened(inert_line(model.rows[place]), room, glyphs), room)} ")
    text.append(f"{phase:<8} ", paint["accent" if phase == "decode" else "muted"])
    text.append(f"{tokens:>6} {pace:>5} ", paint["foreground"])
    step = model.steps[model.steps_of[place]].name
    return text.append(f"{ago(max(0.0, now_s - since_s)):>4}  {step}, {inert_line(worker)}", paint["muted"])


def _standing(seen: Preview | None) -> tuple[str, str, str]:
    """The phase, the length of the sequence in tokens, the pace; empty is unknown."""
    if seen is None or (seen.slot is None and not seen.tokens_out):
        return "waits", "", ""
    if seen.slot is None:
        return "decode", "", ""
    pace = "" if seen.slot.tokens_per_s is None else short(seen.slot.tokens_per_s)
    return "prefill" if seen.slot.is_prefill else "decode", f"{seen.slot.tokens:,}", pace
