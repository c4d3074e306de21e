"""What a run does next, decided from values alone: no loop, no log, no worker."""

from __future__ import annotations

import msgspec
import pytest

from gx.core import event as e
from gx.core.message import Answer, Failure, Message, Sampling, Turn
from gx.core.ports import AttemptEnded, BenchDown
from gx.core.projection import fold
from gx.core.task import EdgeLease
from gx.core.view import RunState, View
from gx.flow import graph
from gx.flow.parse import plan_recipe
from gx.run import outcomes, scheduler
from gx.run.scheduler import Held, Moment, Move

PLAN = plan_recipe(
    """
version: 1
name: n
models: {m: x}
agents: {a: {model: m}}
steps:
  - {id: s, for_each: inputs, agent: a, prompt: "{{ item }}", timeout: 10s}
""",
    {},
)
NOW = Moment(1_000.0, 50.0)
LEASE = EdgeLease(epoch=1, incarnation=1)
IDLE = Held(at_hand={}, begun_at={}, draining=None, draining_since=0.0, is_held_up=False)


def run_of(
    rows: int = 0, *, leased: int = 0, ended: bool = True, late: tuple[int, ...] = (), **created: float | int
) -> RunState:
    """A run with so many tasks, of which the first ones are leased, the others ready; `late` ones came so last."""
    view = View()

    def say(*bodies: e.Body) -> None:
        for body in bodies:
            fold(view, e.Event(seq=view.seq + 1, ts=0, source="test", body=body))

    say(e.RunCreated(run="r", name="n", fingerprint="", recipe="", params="", **created))  # type: ignore[arg-type]
    run = view.runs["r"]
    if rows:
        say(e.InputsRead(run="r", rows=tuple(e.InputRow(index=n, id=str(n), item=f"i{n}") for n in range(rows))))
    if ended:
        say(e.InputsEnded(run="r", rows=rows))
    say(*graph.unfold(PLAN, run))
    tasks = dict(enumerate(run.tasks))
    for number in (*(n for n in tasks if n not in late), *late):
        task = tasks[number]
        say(e.TaskPrepared(run="r", task=task, attempt=1, key=f"k{number}", model="m", prompt=(), seed=0))
        if number < leased:
            say(e.TaskLeased(run="r", task=task, attempt=1, worker="edge", lease=LEASE))
    return run


def advance(run: RunState, held: Held = IDLE, at: Moment = NOW, before: tuple[e.Body, ...] = ()) -> Move:
    return scheduler.advance(PLAN, run, held, at, leases=2, before=before)


def test_a_run_ends_when_nothing_more_can_come_and_nothing_waits_for_its_commit() -> None:
    run = run_of(0)
    assert isinstance(advance(run).last, e.RunFinished)
    assert advance(run, before=(e.InputsEnded(run="r", rows=0),)).last is None
    assert advance(run_of(0, ended=False)).last is None


def test_a_deadline_cuts_off_what_is_leased_and_ends_the_run_when_that_has_ended() -> None:
    late = Moment(2_000.0, 60.0)
    move = advance(run_of(2, leased=1, deadline_at=1_500.0), at=late)
    assert move.stop is not None and move.is_cut_off and move.last is None and not move.prepare
    assert advance(run_of(2, deadline_at=1_500.0), at=late).last == move.stop


def test_a_budget_counts_what_is_about_to_be_committed_and_cuts_nothing_off() -> None:
    run = run_of(2, leased=1, budget_tokens=10)
    spent = e.TaskSucceeded(run="r", task=next(iter(run.tasks)), attempt=1, key="k0", output="o", tok_in=9, tok_out=1)
    assert advance(run).stop is None
    move = advance(run, before=(spent,))
    assert move.stop is not None and move.stop.limit == "budget" and not move.is_cut_off and not move.may_grant


def test_a_run_that_drains_grants_nothing_and_says_its_last_word_when_nothing_is_leased() -> None:
    last = e.RunInterrupted(run="r", reason="interrupted")
    held = IDLE._replace(draining=last)
    assert advance(run_of(2, leased=1), held) == Move()
    assert advance(run_of(2), held).last is last
    assert advance(run_of(2), held, before=(last,)).last is None


def test_a_client_that_takes_nothing_stops_grants_and_preparing_but_not_the_worker() -> None:
    move = advance(run_of(3), IDLE._replace(is_held_up=True))
    assert (move.wants_worker, move.may_grant, list(move.prepare)) == (True, False, [])


def test_tasks_whose_turn_is_not_at_hand_are_prepared_first() -> None:
    run = run_of(3)
    first, *others = run.ready
    assert list(advance(run, IDLE._replace(at_hand={first: 1})).prepare) == others


@pytest.mark.parametrize(("monotonic", "is_hung"), [(80.0, False), (80.1, True)])
def test_a_worker_hangs_when_an_attempt_outlives_twice_its_time_and_the_grace(monotonic: float, is_hung: bool) -> None:
    run = run_of(1, leased=1)
    held = IDLE._replace(begun_at={task: scheduler.Begun(one.attempt, 50.0) for task, one in run.leased.items()})
    assert bool(advance(run, held, Moment(0.0, monotonic)).hung) is is_hung
    assert not scheduler.advance(PLAN, run, held, Moment(0.0, monotonic), leases=None, before=()).hung


def test_no_more_leases_are_granted_than_are_free_and_only_for_turns_at_hand() -> None:
    run = run_of(4)
    granted = scheduler.decide(run, 0.0, worker="edge", lease=LEASE, free=2, at_hand=list(run.ready)[1:])
    assert [body.task for body in granted if isinstance(body, e.TaskLeased)] == list(run.ready)[1:3]
    ended = [AttemptEnded(task="t", attempt=1, outcome=Failure(code="x", message="y"))]
    assert scheduler.free_leases(3, [run_of(4, leased=3)], ended) == 1


def test_the_turn_of_a_retry_has_its_number_and_another_seed() -> None:
    turn = Turn(
        run="r",
        task="t",
        attempt=1,
        model="m",
        messages=(Message(role="user", content="x"),),
        sampling=Sampling(seed=1),
    )
    task = next(iter(run_of(1, leased=1).tasks.values()))
    leased = e.TaskLeased(run="r", task=task.id, attempt=1, worker="edge", lease=task.lease or LEASE)
    assert scheduler.turn_of(task, leased, turn) is turn
    task.attempt, task.failures = 2, 1
    assert scheduler.turn_of(task, leased, turn) is None  # what was committed with it ended the attempt
    again = scheduler.turn_of(task, msgspec.structs.replace(leased, attempt=2, lease=task.lease or LEASE), turn)
    assert again is not None and again.attempt == 2 and again.sampling.seed != 1


def test_a_clock_jumps_only_beyond_drift() -> None:
    assert scheduler.clock_jump(NOW, Moment(1_014.0, 60.0)) is None
    assert scheduler.clock_jump(NOW, Moment(1_110.0, 60.0)) == 100.0


def test_time_alone_matters_at_deadlines_retries_and_while_something_runs() -> None:
    assert scheduler.next_instant(run_of(1), IDLE, 0.0) is None
    run = run_of(1, deadline_at=700.0)
    run.delayed["t"] = 300.0
    assert scheduler.next_instant(run, IDLE, 0.0) == 300.0
    assert (
        scheduler.next_instant(run, IDLE._replace(begun_at={"t": scheduler.Begun(1, 0.0)}), 0.0)
        == scheduler.WATCH_EVERY_S
    )
    assert scheduler.next_instant(run, IDLE._replace(draining=e.RunInterrupted(run="r", reason="")), 0.0) is None


def test_a_retry_that_is_due_and_finds_no_room_keeps_nobody_awake() -> None:
    run = run_of(2)
    run.delayed = {"late": 8.0, "soon": 12.0}
    assert scheduler.next_instant(run, IDLE, 5.0) == 8.0
    assert scheduler.next_instant(run, IDLE, 10.0) == 12.0


@pytest.mark.parametrize(
    ("is_expected", "hung", "is_suspect"), [(False, (), True), (True, (), False), (True, (1,), True)]
)
def test_the_tasks_of_a_lost_bench_are_suspects_unless_it_was_told_to_end_for_another_reason(
    is_expected: bool, hung: tuple[int, ...], is_suspect: bool
) -> None:
    down = BenchDown(incarnation=1, reason="gone", is_expected=is_expected)
    exited, lost = outcomes.bench_down(down, [run_of(2, leased=1)], worker="edge", epoch=1, hung=hung)
    assert isinstance(exited, e.BenchExited)
    assert isinstance(lost, e.AttemptLost) and lost.is_suspect is is_suspect


@pytest.mark.parametrize("had_questions", [True, False])
def test_who_ran_beside_a_question_was_not_alone(had_questions: bool) -> None:
    run = run_of(2, leased=1)
    (task,) = run.leased.values()
    task.is_alone, task.losses, task.losses_alone = True, 3, outcomes.LOSSES_ALONE_BEFORE_FAILED - 1
    down = BenchDown(incarnation=1, reason="gone", had_questions=had_questions)
    _, ended = outcomes.bench_down(down, [run], worker="edge", epoch=1, hung=())
    if had_questions:
        assert isinstance(ended, e.AttemptLost) and ended.is_suspect and not ended.alone
    else:
        assert isinstance(ended, e.TaskFailed)


def test_who_is_lost_again_and_again_beside_questions_is_to_blame_all_the_same() -> None:
    run = run_of(2, leased=1)
    (task,) = run.leased.values()
    task.is_alone, task.losses = True, outcomes.MOST_LOSSES - 1
    down = BenchDown(incarnation=1, reason="gone", had_questions=True)
    _, ended = outcomes.bench_down(down, [run], worker="edge", epoch=1, hung=())
    assert isinstance(ended, e.TaskFailed)


def test_what_is_kept_of_an_outcome_is_its_answer_or_its_detail() -> None:
    assert outcomes.content_of(Answer(value=msgspec.Raw(b'"x"'))) == b'"x"'
    assert outcomes.content_of(Failure(code="x", message="y", detail="z")) == b"z"
    assert outcomes.content_of(Failure(code="x", message="y")) is None


def test_tasks_that_were_overtaken_while_they_were_prepared_are_granted_first() -> None:
    run = run_of(6, late=(1, 3))
    every = scheduler.decide(run, 0.0, worker="edge", lease=LEASE, free=6, at_hand=run.tasks)
    assert {run.tasks[body.task].index for body in every[:2] if isinstance(body, e.TaskLeased)} == {1, 3}
    assert [run.tasks[body.task].index for body in every[2:] if isinstance(body, e.TaskLeased)] == [0, 2, 4, 5]
