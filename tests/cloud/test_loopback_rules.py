"""Who gets which input and when to scale, without a network: the pure state of the loopback under any sequence."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cloud.loopback.backlog import LOSSES_MAX, Backlog, Call
from cloud.loopback.ledger import Ledger, Stay, bills
from cloud.loopback.plane import tcp_listener
from cloud.loopback.scaling import Limits, Seat, decide

HOLDERS = st.sampled_from(["ta-1", "ta-2", "ta-3"])


class Backlogs(RuleBasedStateMachine):
    """A backlog beside a plain model of it: what each container holds, and how each call ended."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog()
        self.calls: list[Call] = []
        self.held: dict[str, str] = {}  # call id -> container, cancelled ones included
        self.ended: dict[str, str] = {}
        self.now_s = 0.0

    @rule()
    def spawn(self) -> None:
        call = Call(call_id=f"fc-{len(self.calls)}", input_id=f"in-{len(self.calls)}", pool="p", argument=b"")
        self.calls.append(call)
        self.backlog.add(call)

    @rule(holder=HOLDERS)
    def take(self, holder: str) -> None:
        call = self.backlog.take("p", holder)
        waiting = [one for one in self.calls if one.call_id not in self.held and one.call_id not in self.ended]
        assert (call is None) == (not waiting)
        if call is not None:
            assert call in waiting
            self.held[call.call_id] = holder

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), holder=HOLDERS)
    def finish(self, data: st.DataObject, holder: str) -> None:
        call = data.draw(st.sampled_from(self.calls))
        counted = self.backlog.finish(call.input_id, holder, "succeeded", b"", self.now_s)
        holds = self.held.get(call.call_id) == holder
        assert (counted is call) == (holds and call.call_id not in self.ended)
        if holds:
            del self.held[call.call_id]
            self.ended.setdefault(call.call_id, "succeeded")

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.calls))
        counted = self.backlog.end(call.call_id, "cancelled", b"", self.now_s)
        assert (counted is call) == (call.call_id not in self.ended)
        self.ended.setdefault(call.call_id, "cancelled")

    @rule(holder=HOLDERS)
    def lose(self, holder: str) -> None:
        given_up = self.backlog.lose(holder, b"", self.now_s)
        self.held = {call: at for call, at in self.held.items() if at != holder}
        for call in given_up:
            assert call.losses == LOSSES_MAX
            self.ended[call.call_id] = "lost"

    @rule(holder=HOLDERS)
    def give_back(self, holder: str) -> None:
        for call in self.backlog.holds(holder)[-1:]:
            losses = call.losses
            self.backlog.give_back(call.input_id, holder)
            assert call.losses == losses
            del self.held[call.call_id]

    @rule()
    def fail_queued(self) -> None:
        for call in self.backlog.fail_queued("p", "failed", b"", self.now_s):
            assert call.call_id not in self.ended
            self.ended[call.call_id] = "failed"
        assert self.backlog.queued("p") == 0

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert {call.call_id: call.ending for call in self.calls if call.ending} == self.ended
        assert {call.call_id: call.holder for call in self.calls if call.holder} == self.held
        assert self.backlog.queued("p") == sum(call.is_queued for call in self.calls)
        for holder in ("ta-1", "ta-2", "ta-3"):
            assert self.backlog.held(holder) == sum(at == holder for at in self.held.values())


Backlogs.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_a_call_is_held_once_and_ends_once = Backlogs.TestCase


def calls(count: int) -> list[Call]:
    return [Call(call_id=f"fc-{n}", input_id=f"in-{n}", pool="p", argument=b"") for n in range(count)]


def test_what_a_dead_container_held_comes_first_and_in_order() -> None:
    backlog = Backlog()
    for call in calls(4):
        backlog.add(call)
    for _ in range(3):
        backlog.take("p", "ta-1")
    backlog.lose("ta-1", b"", 0.0)
    order = []
    while (call := backlog.take("p", "ta-2")) is not None:
        order.append(call.call_id)
    assert order == ["fc-0", "fc-1", "fc-2", "fc-3"]


SEATS = st.lists(
    st.builds(
        lambda held, idle: (held, None if held else idle),
        st.integers(0, 5),
        st.one_of(st.none(), st.floats(0, 100)),
    ),
    max_size=8,
).map(lambda found: [Seat(task_id=f"ta-{n}", held=h, idle_since_s=i) for n, (h, i) in enumerate(found)])
LIMITS = st.builds(
    Limits,
    min_containers=st.integers(0, 3),
    max_containers=st.one_of(st.none(), st.integers(1, 6)),
    buffer_containers=st.integers(0, 2),
    scaledown_window_s=st.floats(1, 60),
    inputs_per_container=st.integers(1, 4),
)


@given(LIMITS, SEATS, st.integers(0, 30), st.integers(-1, 10), st.floats(100, 200))
def test_scaling_keeps_to_its_limits(limits: Limits, seats: list[Seat], queued: int, room: int, now_s: float) -> None:
    verdict = decide(limits, seats, queued, room, now_s)
    after = len(seats) + verdict.start - len(verdict.stop)
    assert not (verdict.start and verdict.stop)
    assert verdict.start <= max(0, room)
    if verdict.start and limits.max_containers is not None:
        assert after <= limits.max_containers
    if queued and not seats and room > 0:
        assert verdict.start >= 1
    stopped = [seat for seat in seats if seat.task_id in verdict.stop]
    assert all(seat.held == 0 and seat.idle_since_s is not None for seat in stopped)
    floor = min(limits.min_containers, limits.max_containers or limits.min_containers)
    assert not stopped or after >= floor


@pytest.mark.parametrize(
    ("seats", "queued", "now_s", "start", "stop", "again_at_s"),
    [
        ([], 0, 0.0, 0, (), None),
        ([], 5, 0.0, 3, (), None),
        ([Seat(task_id="a", held=2)], 1, 0.0, 1, (), None),
        ([Seat(task_id="a", idle_since_s=1.0)], 0, 5.0, 0, (), 11.0),
        ([Seat(task_id="a", idle_since_s=1.0)], 0, 11.0, 0, ("a",), None),
        ([Seat(task_id="a", idle_since_s=9.0), Seat(task_id="b", idle_since_s=1.0)], 0, 11.0, 0, ("b",), 19.0),
    ],
)
def test_scaling_by_example(
    seats: list[Seat], queued: int, now_s: float, start: int, stop: tuple[str, ...], again_at_s: float | None
) -> None:
    limits = Limits(inputs_per_container=2, scaledown_window_s=10)
    verdict = decide(limits, seats, queued, 100, now_s)
    assert (verdict.start, verdict.stop, verdict.again_at_s) == (start, stop, again_at_s)


def a_stay(name: str, at_s: float, gpu: str = "L4", count: int = 1) -> Stay:
    return Stay(
        task_id=name,
        app="gx",
        function="Bench.*",
        gpu=gpu,
        gpu_count=count,
        cpu_cores=2,
        memory_mib=1024,
        asked_at_s=at_s,
    )


def test_a_bill_covers_loading_work_and_idle_tail() -> None:
    ledger = Ledger()
    ledger.open(a_stay("a", 10.0))
    ledger.served("a", 14.0)
    ledger.took("a", 15.0)
    ledger.took("a", 16.0)
    ledger.rested("a", 20.0)
    ledger.close("a", "scaled down", 50.0)
    ledger.open(a_stay("b", 20.0, count=2))
    ledger.open(a_stay("c", 20.0, gpu="H100"))
    l4, h100 = reversed(bills(ledger.stays.values(), 60.0))
    assert (l4.gpu, l4.containers, l4.inputs, l4.billed_s, l4.gpu_s) == ("L4", 2, 2, 80.0, 120.0)
    assert (l4.loading_s, l4.busy_s, l4.idle_s) == (44.0, 5.0, 31.0)
    assert (h100.gpu, h100.billed_s, h100.loading_s) == ("H100", 40.0, 40.0)


def test_the_pure_files_load_no_protocol() -> None:
    script = (
        "import sys, cloud.loopback.backlog, cloud.loopback.scaling, cloud.loopback.ledger, cloud.loopback.faults\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'modal', 'modal_proto', 'grpclib', 'google'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180, check=True)
    assert done.stdout.strip() == "[]"


def test_replies_are_not_held_back_for_more_to_come() -> None:
    with tcp_listener() as listener:
        assert listener.proto == socket.IPPROTO_TCP  # asyncio looks at this before it sets TCP_NODELAY
