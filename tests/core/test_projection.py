"""The fold is total, and holds its rules for any events in any order, not only for those that a scheduler makes."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gx.core import event as e
from gx.core.event import Body, Event
from gx.core.figures import figures
from gx.core.projection import fold
from gx.core.task import EdgeLease, Status
from gx.core.view import RunState, TaskState, View

RUN = "r"
TASKS = ("t0", "t1", "t2", "t3")
LEASE = EdgeLease(epoch=1, incarnation=1)

names = st.sampled_from(TASKS)
attempts = st.integers(1, 3)
tokens = st.integers(0, 9)
keys = st.sampled_from(("k0", "k1", "k2"))

CREATED = e.RunCreated(run=RUN, name="x", fingerprint="f", recipe="0" * 32, params="1" * 32)


def queued(task: str) -> e.TaskQueued:
    index = TASKS.index(task)
    return e.TaskQueued(run=RUN, task=task, step=f"s{index % 2}", path=str(index), index=index, id=str(index))


def of_task(kind: Any, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Body]:
    return st.builds(kind, run=st.just(RUN), task=names, attempt=attempts, **fields)


text = st.just("why")
edge = st.just("edge")
terminal = st.one_of(
    of_task(e.TaskSucceeded, key=keys, output=st.just("2" * 32), tok_in=tokens, tok_out=tokens, cached=st.just(None)),
    of_task(e.TaskFailed, code=text, message=text),
    of_task(e.TaskCancelled, reason=text),
    of_task(e.TaskSkipped, reason=text),
)
of_tasks = st.one_of(
    of_task(e.TaskPrepared, key=keys, model=text, prompt=st.just(())),
    of_task(e.TaskLeased, worker=edge, lease=st.just(LEASE)),
    of_task(e.AttemptFailed, worker=edge, code=text, message=text, tok_in=tokens, tok_out=tokens),
    of_task(e.AttemptLost, worker=edge, reason=text, is_suspect=st.booleans(), alone=st.booleans()),
    of_task(e.TaskRetried, not_before=st.floats(0, 9)),
    terminal,
)
bodies = st.one_of(
    names.map(queued),
    of_tasks,
    of_task(e.AttemptSuperseded, worker=edge, outcome=text, tok_in=tokens, tok_out=tokens),
    st.sampled_from(
        [
            CREATED,
            e.RunResumed(run=RUN, budget_tokens=5),
            e.RunInterrupted(run=RUN, reason="why"),
            e.RunStopped(run=RUN, limit="budget", reason="why"),
            e.InputsEnded(run=RUN, rows=3),
            e.StepUnfolded(run=RUN, step="s0", tasks=2),
            e.StepGrouped(run=RUN, step="s1", level=0, spans=((0, 1),)),
            e.StepPaused(run=RUN, step="s0"),
            e.StepContinued(run=RUN, step="s0"),
            e.StepRouted(run=RUN, step="s0", agent="b"),
            e.RuleFired(run=RUN, rule="x", read_seq=1, rows="3" * 32, at=1.0, action="why"),
            e.RuleCleared(run=RUN, rule="x", read_seq=1),
            e.RuleFailed(run=RUN, rule="x", code="query", message="why", detail="4" * 32),
            e.QuestionAsked(run=RUN, question="q", text="why", choices=("continue", "stop")),
            e.QuestionAnswered(run=RUN, question="q", choice="continue"),
            e.StopAsked(run=RUN, reason="why"),
            e.NodeStarted(epoch=2, pid=1),
            e.NodeStopped(epoch=2),
            e.BenchStarted(worker="edge", epoch=1, incarnation=1, pid=1, slots=4),
            e.BenchMeasured(run=RUN, worker="edge", epoch=1, incarnation=1, requests=3, prefill_s=0.1, slots_busy=2),
            e.BenchMeasured(run="another", worker="cloud", epoch=1, incarnation=1, requests=1),
            e.BenchExited(worker="edge", epoch=1, incarnation=1, reason="why"),
            e.RunFinished(run="another", succeeded=1, failed=0),
        ]
    ),
)
stories = st.lists(bodies, max_size=60).map(lambda rest: [CREATED, *map(queued, TASKS), *rest])


def told(story: list[Body], view: View | None = None) -> View:
    """The fold of the story, told after what `view` has seen."""
    seen = view or View()
    for body in story:
        fold(seen, Event(seq=seen.seq + 1, ts=0, source="test", body=body))
    return seen


def run_of(view: View) -> RunState:
    return view.runs[RUN]


@given(stories, st.integers(0, 65))
def test_a_fold_over_a_prefix_and_its_tail_equals_the_fold_over_the_whole(story: list[Body], cut: int) -> None:
    snapshot = copy.deepcopy(told(story[:cut]))
    assert told(story[cut:], snapshot) == told(story)


@given(stories, of_tasks)
def test_a_stale_attempt_changes_nothing(story: list[Body], body: Any) -> None:
    view = told(story)
    task = run_of(view).tasks[body.task]
    stale = body.attempt != task.attempt or task.status.is_terminal
    before = copy.deepcopy(view)
    told([body], view)
    before.seq = before.runs[RUN].seq = view.seq
    assert not stale or view == before


@given(stories, terminal, stories)
def test_a_terminal_task_never_changes(story: list[Body], end: Any, rest: list[Body]) -> None:
    view = told(story)
    task = run_of(view).tasks[end.task]
    told([msgspec.structs.replace(end, attempt=task.attempt)], view)
    assert task.status.is_terminal
    before = copy.deepcopy(task)
    told(rest, view)
    assert run_of(view).tasks[end.task] is task
    assert task == before


@given(stories)
def test_queueing_a_task_twice_makes_it_once(story: list[Body]) -> None:
    run = run_of(told(story))
    assert sorted(run.tasks) == sorted(TASKS)
    assert sorted(task.id for step in run.steps.values() for task in step.tasks) == sorted(TASKS)
    assert [task.order for task in run.tasks.values()] == list(range(len(TASKS)))


@given(stories)
def test_a_task_has_a_lease_only_while_it_is_leased(story: list[Body]) -> None:
    run = run_of(told(story))
    leased = {task.id for task in run.tasks.values() if task.status is Status.leased}
    assert set(run.leased) == leased
    for task in run.tasks.values():
        assert (task.lease is not None) == (task.worker is not None) == (task.id in leased)


@given(stories)
def test_a_task_stands_in_one_queue_at_most_and_one_of_a_paused_step_in_none_but_its_place(story: list[Body]) -> None:
    run = run_of(told(story))
    queues = (run.unprepared, run.ready, run.delayed, run.suspects, run.parked)
    for task in run.tasks.values():
        standing = [queue for queue in queues if task.id in queue]
        assert len(standing) <= (task.status in (Status.queued, Status.prepared))
        assert not standing or (standing[0] is run.parked) == (task.step in run.paused_steps)
        assert task.status is not Status.queued or standing


@given(stories)
def test_counters_equal_a_recount(story: list[Body]) -> None:
    run = run_of(told(story))

    def recount(tasks: list[TaskState]) -> tuple[int, dict[Status, int]]:
        ended = Counter(task.status for task in tasks if task.status.is_terminal)
        return len(tasks) - ended.total(), dict(ended)

    for step in run.steps.values():
        assert (step.live, step.ended) == recount(step.tasks)
    live, ended = recount(list(run.tasks.values()))
    assert run.live == live
    assert {status: run.count(status) for status in Status if run.count(status)} == ended


@given(stories)
def test_tokens_equal_a_recount_of_the_events_that_counted(story: list[Body]) -> None:
    view, spent = View(), 0
    for body in story:
        task = view.runs[RUN].tasks.get(getattr(body, "task", "")) if RUN in view.runs else None
        before = (task.attempt, task.status) if task is not None else None
        told([body], view)
        if isinstance(body, e.AttemptSuperseded):
            spent += body.tok_in + body.tok_out
        elif isinstance(body, e.TaskSucceeded | e.AttemptFailed) and before is not None:
            is_heard = before[0] == body.attempt and not before[1].is_terminal
            spent += (body.tok_in + body.tok_out) if is_heard else 0
    assert run_of(view).spent_tokens == spent


@given(stories)
def test_attempts_only_grow(story: list[Body]) -> None:
    view = View()
    for body in story:
        before = {task.id: task.attempt for task in view.runs[RUN].tasks.values()} if RUN in view.runs else {}
        told([body], view)
        for name, attempt in before.items():
            assert run_of(view).tasks[name].attempt in (attempt, attempt + 1)


UP = e.BenchStarted(worker="edge", epoch=1, incarnation=2, pid=1, slots=4, engine="llama.cpp")


def measured(incarnation: int, tokens: int) -> e.BenchMeasured:
    return e.BenchMeasured(
        run=RUN, worker="edge", epoch=1, incarnation=incarnation, decode_tokens=tokens, decode_s=2.0, slots_busy=3
    )


def test_a_bench_that_is_up_has_what_it_did_lately_and_a_run_the_sum() -> None:
    view = told([CREATED, UP, measured(2, 10), measured(2, 30)])
    bench = view.benches["edge"]
    assert (bench.engine, bench.slots, bench.slots_busy) == ("llama.cpp", 4, 3)
    assert figures(bench.lately).written_tokens_per_s == 15
    assert (run_of(view).counts.decode_tokens, run_of(view).counts.decode_s) == (40, 4.0)


def test_what_an_earlier_bench_did_counts_for_the_run_and_not_for_the_one_that_is_up() -> None:
    view = told([CREATED, UP, measured(1, 10)])
    assert view.benches["edge"].slots_busy == 0
    assert run_of(view).counts.decode_tokens == 10
    gone = e.BenchExited(worker="edge", epoch=1, incarnation=1, reason="why")
    assert "edge" in told([gone], view).benches


def test_a_bench_ends_with_its_exit_or_its_node() -> None:
    gone = e.BenchExited(worker="edge", epoch=1, incarnation=2, reason="why")
    for end in (gone, e.NodeStopped(epoch=1), e.NodeStarted(epoch=2, pid=1)):
        assert not told([CREATED, UP, end]).benches
