"""What the monitor offers to rent: a run that rehearses is never turned into one that pays."""

from __future__ import annotations

from pathlib import Path

import pytest

from gx.cli.monitor import _is_rehearsed
from gx.core import event as e
from gx.core.terms import Terms
from gx.node.workspace import Workspace
from tests.tui.written import RUN, Written

REHEARSED, PAID = Terms(is_rehearsal=True), Terms(usd=2.0)


@pytest.mark.parametrize(
    ("begun", "later", "is_rehearsed"),
    [
        (None, None, False),
        (PAID, None, False),
        (REHEARSED, None, True),
        (None, REHEARSED, True),
        (REHEARSED, PAID, False),
    ],
)
def test_the_newest_terms_say_whether_a_burst_is_rehearsed(
    tmp_path: Path, begun: Terms | None, later: Terms | None, *, is_rehearsed: bool
) -> None:
    w = Written()
    w.begin(RUN, burst=begun)
    if later is not None:
        w.add(e.BurstAllowed(run=RUN, terms=later))
    assert _is_rehearsed(RUN, Workspace(w.write(tmp_path / ".gx"))) is is_rehearsed
