"""What `gx ps` tells of rented containers: from the run's ledger and leases, in text and as JSON."""

from __future__ import annotations

import json

import pytest

from gx.cli.ps import tell
from gx.core import event as e
from gx.core.projection import fold
from gx.core.task import CloudLease
from gx.core.terms import Terms
from gx.core.view import RunState, View
from gx.node.renting import rented_now
from gx.node.status import NodeStatus

RUN = "r-1"
RESERVED = {"usd_per_s": 0.01, "timeout_s": 60.0, "cold_start_s": 9.0, "lease_s": 60.0, "window_s": 20.0}


def renting(terms: Terms) -> RunState:
    """A run with a container that was seen, one that starts, one that has ended, and two attempts in flight."""
    view, common = View(), {"run": RUN, "attempt": 1}
    bodies: list[e.Body] = [
        e.RunCreated(run=RUN, name="n", fingerprint="f", recipe="", params="", burst=terms),
        *(e.ContainerReserved(run=RUN, container=f"c{n}", gpu="L4", at=100.0 + n, **RESERVED) for n in range(3)),
        e.ContainerSeen(run=RUN, container="c0", name="ta-1", began_at=101.0, at=130.0),
        e.ContainerEnded(run=RUN, container="c2", at=112.0),
    ]
    for task in ("t1", "t2"):
        bodies += [
            e.TaskQueued(run=RUN, task=task, step="s", path=task, index=0, id=task),
            e.TaskPrepared(**common, task=task, key=f"k-{task}", model="m" * 64, prompt=()),
            e.TaskLeased(**common, task=task, worker="cloud", lease=CloudLease(call="", gpu="L4")),
        ]
    for seq, body in enumerate(bodies):
        fold(view, e.Event(seq=seq, ts=seq, source="t", body=body))
    return view.runs[RUN]


def node_of(run: RunState) -> NodeStatus:
    rented = rented_now(run, 140.0, slots=8)
    assert rented is not None
    usd = 0.0 if rented.is_rehearsal else rented.usd
    return NodeStatus(pid=7, gx="1", workspace="w", epoch=1, seq=9, stays=False, usd=usd, rented=(rented,))


def test_each_container_that_may_be_alive_is_told_with_its_state_age_and_cost() -> None:
    rented = rented_now(renting(Terms(usd=2.0)), 140.0, slots=8)
    assert rented is not None
    assert (rented.in_flight, rented.slots, rented.cap_usd) == (2, 8, 2.0)
    assert rented.usd == pytest.approx(0.3 + 0.1), "with what an ended one cost"
    found = [(one.container, one.name, one.gpu, one.state, one.age_s) for one in rented.containers]
    assert found == [("c0", "ta-1", "L4", "up", 40.0), ("c1", "", "L4", "starting", 39.0)]
    assert [one.usd for one in rented.containers] == pytest.approx([0.3, 0.0])


def test_a_run_that_never_rented_has_nothing_to_tell() -> None:
    view = View()
    created = e.RunCreated(run=RUN, name="n", fingerprint="f", recipe="", params="", burst=Terms(usd=2.0))
    fold(view, e.Event(seq=0, ts=0, source="t", body=created))
    assert rented_now(view.runs[RUN], 140.0, slots=0) is None


def test_ps_has_a_row_for_each_container_and_one_for_all_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    tell(node_of(renting(Terms(usd=2.0))), as_json=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["kind"] for row in rows] == ["rented", "container", "container"]
    assert rows[0] == {"kind": "rented", "run": RUN, "is_rehearsal": False, "in_flight": 2, "slots": 8,
                       "usd": pytest.approx(0.4), "cap_usd": 2.0, "containers": 2}  # fmt: skip
    assert {"run": RUN, "gpu": "L4", "state": "up", "age_s": 40.0}.items() <= rows[1].items()


@pytest.mark.parametrize("is_rehearsal", [False, True])
def test_ps_says_in_words_what_is_rented_and_whether_it_is_paid(
    capsys: pytest.CaptureFixture[str], is_rehearsal: bool
) -> None:
    terms = Terms(is_rehearsal=True) if is_rehearsal else Terms(usd=2.0)
    tell(node_of(renting(terms)), as_json=False)
    out = capsys.readouterr().out
    assert f"rented for {RUN}: 1 of 2 containers up, 2 tasks in flight for 8 slots, " in out
    assert ("nothing is paid: a rehearsal" if is_rehearsal else "$0.40 of $2.00 spent") in out
    assert "ta-1" in out
    assert "40 s" in out
    assert ("0.3000 rehearsed" if is_rehearsal else "0.3000") in out
    assert f"{0.0 if is_rehearsal else 0.4:.2f} USD spent" in out


def rented_for_30_s(number: int, terms: Terms) -> list[e.Body]:
    container = f"c{number}"
    return [
        e.BurstAllowed(run=RUN, terms=terms),
        e.ContainerReserved(run=RUN, container=container, gpu="L4", at=100.0, **RESERVED),
        e.ContainerEnded(run=RUN, container=container, at=130.0),
    ]


@pytest.mark.parametrize("order", [(True, False), (False, True), (True, False, True), (False, True, False, False)])
def test_what_was_rehearsed_is_never_spent_and_what_was_spent_never_rehearsed(order: tuple[bool, ...]) -> None:
    view = View()
    bodies: list[e.Body] = [e.RunCreated(run=RUN, name="n", fingerprint="f", recipe="", params="")]
    for number, is_rehearsal in enumerate(order):
        bodies += rented_for_30_s(number, Terms(is_rehearsal=True) if is_rehearsal else Terms(usd=2.0))
    for seq, body in enumerate(bodies):
        fold(view, e.Event(seq=seq, ts=seq, source="t", body=body))
    run = view.runs[RUN]
    assert run.rent is not None
    assert run.rent.paid_usd == pytest.approx(0.3 * order.count(False))
    now = rented_now(run, 140.0, slots=0)
    assert now is not None
    assert now.usd == pytest.approx(0.3 * order.count(order[-1])), "on terms like the present ones"
    if not order[-1]:
        assert run.rent.ledger.free_usd == pytest.approx(2.0 - 0.3 * order.count(False)), "the cap is for what is paid"
