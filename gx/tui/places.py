"""Which tasks the grid shows: those of a state, those whose row or id has a text in it. Pure."""

from __future__ import annotations

from gx.tui.model import RunModel
from gx.tui.states import State


def places_of(model: RunModel, state: State | None, text: str) -> list[int] | None:
    """The places of the tasks that fit, in order; None where all do."""
    if state is None and not text:
        return None
    wanted = text.lower()
    return [
        place
        for place, now in enumerate(model.states)
        if (state is None or now == state)
        if not wanted or wanted in model.rows[place].lower() or model.ids[place].startswith(wanted)
    ]


def next_state(model: RunModel, state: State | None) -> State | None:
    """The next state, in the order of the legend, that any task is in; None after the last."""
    later = [one for one in State if model.counts[one] and (state is None or one > state)]
    return later[0] if later else None
