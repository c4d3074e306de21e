"""What a run rents, as lines: its containers together, then each with its GPU, state, age and cost. Pure.

Those that have ended come last. Nobody says which container has which attempt: what is in flight, what they answered
and their pace are those of all of them.
"""

from __future__ import annotations

from rich.text import Text

from gx.core.inert import inert_line
from gx.node.status import NodeStatus
from gx.tui.draw import bar, dollars, duration
from gx.tui.glyphs import Glyphs
from gx.tui.model import RunModel
from gx.tui.rented import WORKER, Container
from gx.tui.themes import Paint

_AGE, _COST = 12, 8
"""Cells: `12 min 05 s`, `$12.3456`."""


def lines(
    model: RunModel, status: NodeStatus | None, *, now_s: float, width: int, paint: Paint, glyphs: Glyphs
) -> list[Text]:
    """None where nothing was ever rented."""
    rented = model.rented
    if not rented.containers:
        return []
    found = sorted(rented.containers.values(), key=lambda one: one.state == "ended")
    room = max(len(one.gpu) for one in found)
    head = Text(f"  {'gpu':<{room}} {'state':<8} {'age':>{_AGE}} {'cost':>{_COST}}  container", paint["muted"])
    shown = [_container(one, room, now_s, paint, says_terms=one.is_rehearsal != rented.is_rehearsal) for one in found]
    return [_together(model, status, now_s, width, paint, glyphs), head, *shown]


def _together(
    model: RunModel, status: NodeStatus | None, now_s: float, width: int, paint: Paint, glyphs: Glyphs
) -> Text:
    """As many of the figures as fit; first, that nobody pays for what is rehearsed."""
    rented, alive = model.rented, model.rented.alive
    in_flight = sum(worker == WORKER for worker, _ in model.running.values())
    now = next((one for one in status.rented if one.run == model.run), None) if status is not None else None
    slots = now.slots if now is not None else 0
    text = Text.assemble((f"{WORKER}{', a rehearsal:' if rented.is_rehearsal else ''} ", paint["bold"]))
    if slots:
        text.append(bar(in_flight / slots, 8, glyphs), paint["accent"])
        text.append(f" {in_flight} in flight, {slots} slots", paint["foreground"])
    elif alive:
        text.append(f"{in_flight} in flight")
    else:
        text.append(f"{len(rented.containers)} ended", paint["muted"])
    figures = [f"{rented.answers:,} answered"]
    if pace := rented.tokens_per_s(now_s):
        figures.append(f"{pace:,.0f} tok/s")
    for figure in figures:
        if text.cell_len + len(figure) + 3 <= width:
            text.append(f" {glyphs.dot} {figure}", paint["foreground"])
    return text


def _container(one: Container, room: int, now_s: float, paint: Paint, *, says_terms: bool) -> Text:
    """With whether its dollars are paid, where those of the run's present terms are not so."""
    text = Text.assemble((f"  {one.gpu:<{room}} ", paint["bold"]))
    text.append(f"{one.state:<8} ", paint["muted" if one.state == "ended" else "accent"])
    figures = f"{duration(one.age_s(now_s)):>{_AGE}} {dollars(one.usd):>{_COST}}  {inert_line(one.name or one.id)}"
    terms = (", rehearsed" if one.is_rehearsal else ", paid") if says_terms else ""
    return text.append(figures + terms, paint["muted"])
