"""Who works: the benches with their slots, the containers with their age and cost, and what each is at. Pure.

A slot's sequence is as long as the bench said last, with what was written since: figures of a preview, a second old.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from rich.cells import set_cell_size
from rich.text import Text

from gx.core.inert import inert_line
from gx.node.previews import Preview, RunningNow
from gx.node.status import BenchNow, NodeStatus
from gx.tui import containers
from gx.tui.chart import ago, short
from gx.tui.draw import bar, shortened
from gx.tui.glyphs import Glyphs
from gx.tui.model import RunModel
from gx.tui.rented import WORKER
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
    most: int = MOST_LISTED,
    is_pane: bool = False,
) -> list[Seat]:
    """The benches, the containers, then what runs, a line each, under the names of the columns; `most` lines of them.

    What is in a slot comes first. Where lines are left out, the last one says how many, and in a pane beside others
    which key shows them.
    """
    found = [Seat(_bench(bench, width, paint, glyphs)) for bench in (status.benches if status is not None else ())]
    rented = containers.lines(model, status, now_s=now_s, width=width, paint=paint, glyphs=glyphs)
    found += [Seat(text) for text in rented]
    if model.running:
        least, room_most = _ROW_CELLS
        room = max(least, min(room_most, width - _FIGURES_CELLS))
        head = f"  {'row':<{room}} {'phase':<8} {'tokens':>6} {'tok/s':>5} {'for':>4}  step, worker"
        found.append(Seat(Text(head, paint["muted"])))
    if not found:
        return [Seat(Text("no worker is up", paint["muted"]))]
    n_lines = len(found) + len(model.running)
    if n_lines > most:
        found = found[: max(0, most - 1)]
    for place, seen in islice(_standing_order(model, running), max(0, most - len(found) - (n_lines > most))):
        found.append(Seat(_task(model, place, seen, room, now_s, paint, glyphs), place))
    if n_lines > most:
        where = ": 3 shows them" if is_pane else ""
        found.append(Seat(Text(f"{glyphs.more} {n_lines - len(found):,} more{where}", paint["muted"])))
    return found


def _standing_order(model: RunModel, running: RunningNow | None) -> Iterator[tuple[int, Preview | None]]:
    """The places of what runs, each with its preview: first what is written, then what is read, then what waits."""
    seen = {one.task: one for one in running.tasks} if running is not None else {}
    found = [(place, seen.get(model.ids[place])) for place in model.running]
    return iter(sorted(found, key=lambda one: _ORDER[_phase(one[1], model.running[one[0]][0])]))


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


def _task(
    model: RunModel, place: int, seen: Preview | None, room: int, now_s: float, paint: Paint, glyphs: Glyphs
) -> Text:
    worker, since_s = model.running[place]
    phase, (tokens, pace) = _phase(seen, worker), _figures(seen)
    row = set_cell_size(shortened(inert_line(model.rows[place]), room, glyphs), room)
    step = model.steps[model.steps_of[place]].name
    return Text.assemble(
        (f"{glyphs.state(State.running)} ", paint["accent"]),
        f"{row} ",
        (f"{phase:<8} ", paint["accent" if phase == "decode" else "muted"]),
        (f"{tokens:>6} {pace:>5} ", paint["foreground"]),
        (f"{ago(max(0.0, now_s - since_s)):>4}  {step}, {inert_line(worker)}", paint["muted"]),
    )


_ORDER = {"decode": 0, "prefill": 1, "cloud": 2, "waits": 3}
_LEAST_TOKENS = 4
"""What must be written before a pace is one: the first token comes with the end of the prefill."""


def _phase(seen: Preview | None, worker: str) -> str:
    """What an attempt is at; of one in a container nothing comes before its answer."""
    if seen is None or (seen.slot is None and not seen.tokens_out):
        return "cloud" if worker == WORKER else "waits"
    return "prefill" if seen.slot is not None and seen.slot.is_prefill else "decode"


def _figures(seen: Preview | None) -> tuple[str, str]:
    """The length of the sequence in tokens, and its pace; empty is unknown."""
    slot = seen.slot if seen is not None else None
    if slot is None:
        return "", ""
    is_pace = slot.is_prefill or slot.tokens_out >= _LEAST_TOKENS
    return f"{slot.tokens:,}", short(slot.tokens_per_s) if is_pace and slot.tokens_per_s is not None else ""
