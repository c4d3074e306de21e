"""What may go wrong, asked for and seen by the unmodified SDK."""

from __future__ import annotations

from collections.abc import Callable

import modal
import modal.exception
import pytest

from cloud.loopback.faults import FaultCounter, Faults, Lost
from tests.cloud.world import WAIT_S, World

Troubled = Callable[..., World]


def test_a_container_killed_in_the_middle_has_its_inputs_queued_again(troubled: Troubled) -> None:
    world = troubled(Faults(kill=(1,)))
    worker = world.worker()()
    calls = [worker.nap.spawn(1.0) for _ in range(2)]
    homes = {call.get(timeout=WAIT_S) for call in calls}
    report = world.report()
    assert report.faults == ("kill at delivery 1",)
    killed = [stay for stay in report.containers if stay.reason == "killed, as asked"]
    assert len(killed) == 1
    assert homes.isdisjoint(stay.task_id for stay in killed)
    assert report.calls == {"succeeded": 2}


def test_an_input_that_always_loses_its_container_fails_in_the_end(troubled: Troubled) -> None:
    world = troubled(Faults(kill=tuple(range(1, 9)), strike_after_s=0.0))
    call = world.worker()().nap.spawn(60)
    with pytest.raises(modal.exception.InternalFailure, match="8 times"):
        call.get(timeout=55)
    assert world.report().calls == {"lost": 1}


def test_a_preempted_container_is_asked_to_go_and_its_input_runs_elsewhere(troubled: Troubled) -> None:
    world = troubled(Faults(preempt=(1,), preempt_grace_s=10))
    home = world.worker()().nap.spawn(1.0).get(timeout=WAIT_S)
    assert world.printed("a nap was cancelled")
    first, second = world.report().containers[:2]
    assert (first.reason, first.inputs) == ("preempted, as asked", 1)
    assert home == second.task_id


def test_a_lost_reply_to_a_spawn_makes_a_second_call_of_which_nobody_knows(troubled: Troubled) -> None:
    world = troubled(Faults(lose=(Lost(rpc="FunctionMap"),)))
    assert world.worker()().echo.spawn(b"once").get(timeout=WAIT_S) == b"once"
    world.until(lambda report: report.calls == {"succeeded": 2})


def test_a_reply_that_is_lost_as_often_as_the_sdk_tries_fails_the_spawn(troubled: Troubled) -> None:
    world = troubled(Faults(lose=(Lost(rpc="FunctionMap", times=4),)))
    worker = world.worker()()
    with pytest.raises(modal.exception.ServiceError, match="was lost, as asked"):
        worker.echo.spawn(b"")
    assert worker.echo.spawn(b"then").get(timeout=WAIT_S) == b"then"


def test_a_result_whose_reply_was_lost_is_still_there(troubled: Troubled) -> None:
    world = troubled(Faults(lose=(Lost(rpc="FunctionGetOutputs"), Lost(rpc="FunctionPutOutputs"))))
    assert world.worker()().echo.spawn(b"kept").get(timeout=WAIT_S) == b"kept"


def test_a_spawn_over_the_quota_is_refused_and_leaves_nothing(troubled: Troubled) -> None:
    world = troubled(Faults(refuse=(1,)))
    worker = world.worker()()
    with pytest.raises(modal.exception.ResourceExhaustedError):
        worker.echo.spawn(b"")
    assert world.report().calls == {}
    assert worker.echo.spawn(b"now").get(timeout=WAIT_S) == b"now"


def test_a_slow_start_is_loading_time_on_the_ledger(troubled: Troubled) -> None:
    world = troubled(Faults(slow_starts={1: 1.0}), cold_start_s=0.5)
    assert world.worker()().echo.spawn(b"").get(timeout=WAIT_S) == b""
    stay = world.report().containers[0]
    assert stay.serving_at_s is not None
    assert stay.serving_at_s - stay.asked_at_s >= 1.5
    (bill,) = world.report().bills
    assert (bill.gpu, bill.containers, bill.inputs) == ("L4", 1, 1)
    assert bill.loading_s >= 1.5
    assert bill.billed_s == pytest.approx(bill.loading_s + bill.busy_s + bill.idle_s)


def test_an_expired_result_says_so(troubled: Troubled) -> None:
    world = troubled(Faults(results_kept_s=0.0))
    call = world.worker()().echo.spawn(b"")
    world.until(lambda report: report.calls == {"succeeded": 1})
    with pytest.raises(modal.exception.OutputExpiredError):
        call.get(timeout=0)


def test_the_account_never_has_more_containers_than_it_may(troubled: Troubled) -> None:
    world = troubled(Faults(), max_containers=1)
    worker, narrow = world.worker()(), world.worker(cls="Narrow").with_options(scaledown_window=2)()
    first = narrow.hold.spawn(0.5)
    world.until(lambda report: len(report.containers) == 1)
    second = worker.echo.spawn(b"waits")
    assert (first.get(timeout=WAIT_S)[:3], second.get(timeout=WAIT_S)) == ("ta-", b"waits")
    one, other = world.report().containers
    assert one.ended_at_s is not None
    assert one.ended_at_s <= other.asked_at_s


def test_faults_are_due_by_their_ordinals_alone() -> None:
    counter = FaultCounter(Faults(kill=(2,), preempt=(3,), refuse=(1,), lose=(Lost(rpc="A", nth=2, times=2),)))
    assert [counter.delivery() for _ in range(4)] == [None, "kill", "preempt", None]
    assert [counter.is_refused() for _ in range(2)] == [True, False]
    assert [counter.is_lost("A") for _ in range(4)] == [False, True, True, False]
    assert [counter.is_lost("B") for _ in range(2)] == [False, False]
    assert counter.struck[:2] == ["kill at delivery 2", "preempt at delivery 3"]


def test_a_lost_reply_that_would_lose_an_input_is_refused() -> None:
    with pytest.raises(ValueError, match="FunctionGetInputs"):
        Lost(rpc="FunctionGetInputs")
