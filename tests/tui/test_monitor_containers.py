"""What the monitor says of rented containers, and whether anybody pays for them."""

from __future__ import annotations

import pytest

from gx.core import event as e
from gx.core.terms import Terms
from gx.node.renting import RentedNow
from gx.node.status import NodeStatus
from gx.tui import containers
from gx.tui.glyphs import UNICODE
from gx.tui.lines import decode
from gx.tui.model import RunModel
from gx.tui.themes import paint_of
from tests.tui.telling import as_line

RUN = "r-1"
REHEARSED, PAID = Terms(is_rehearsal=True), Terms(usd=2.0)


def renting(*terms: Terms) -> RunModel:
    """A run with a container for 30 s on each of these terms, one after the other."""
    bodies: list[e.Body] = [e.RunCreated(run=RUN, name="n", fingerprint="f", recipe="", params="", burst=terms[0])]
    for n, one in enumerate(terms):
        bodies += [
            e.BurstAllowed(run=RUN, terms=one),
            e.ContainerReserved(run=RUN, container=f"c{n}", gpu="L4", usd_per_s=0.01, timeout_s=1, cold_start_s=1,
                                lease_s=1, window_s=1, at=100),
            e.ContainerSeen(run=RUN, container=f"c{n}", name=f"ta-{n}", began_at=101, at=120),
            e.ContainerEnded(run=RUN, container=f"c{n}", at=130),
        ]  # fmt: skip
    model = RunModel(RUN)
    model.apply(decode([as_line(body, seq, seq * 1_000_000) for seq, body in enumerate(bodies)]))
    return model


def shown(model: RunModel, width: int) -> list[str]:
    rented = RentedNow(run=RUN, is_rehearsal=model.rented.is_rehearsal, in_flight=0, slots=8, usd=0.3, cap_usd=None)
    status = NodeStatus(pid=1, gx="1", workspace="w", epoch=1, seq=1, stays=False, rented=(rented,))
    found = containers.lines(model, status, now_s=130.0, width=width, paint=paint_of("dark"), glyphs=UNICODE)
    return [text.plain for text in found]


def test_a_pane_of_56_cells_says_that_nobody_pays() -> None:
    together = shown(renting(REHEARSED), 56)[0]
    assert together.startswith("cloud, a rehearsal: ")
    assert len(together) <= 56
    assert "rehearsal" not in shown(renting(PAID), 56)[0]


@pytest.mark.parametrize("terms", [(REHEARSED, PAID), (PAID, REHEARSED), (PAID, REHEARSED, PAID)])
def test_what_is_paid_is_paid_and_what_is_rehearsed_is_not_whatever_comes_after(terms: tuple[Terms, ...]) -> None:
    model = renting(*terms)
    assert model.rented.usd == pytest.approx(0.3 * sum(not one.is_rehearsal for one in terms))
    last = terms[-1].is_rehearsal
    for line, one in zip(shown(model, 120)[2:], terms, strict=True):
        assert line.endswith("" if one.is_rehearsal == last else ", rehearsed" if one.is_rehearsal else ", paid"), line
