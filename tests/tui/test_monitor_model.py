"""The monitor's model of a run: the same counts as the projection, in bounded memory."""

from __future__ import annotations

import random

import msgspec
import pytest

from gx.core import event as e
from gx.core.projection import fold
from gx.core.task import EdgeLease, Status
from gx.core.view import View
from gx.tui.causes import Causes, shape_of
from gx.tui.lines import Line, decode
from gx.tui.model import RunModel
from gx.tui.rented import PACE_S
from gx.tui.series import MOST, Series
from gx.tui.states import LOOKS, State
from tests.tui.telling import as_line

RUN = "r-1"
LEASE = EdgeLease(epoch=1, incarnation=1)


def told(bodies: list[e.Body]) -> tuple[RunModel, View]:
    """The model and the projection after the same events."""
    model, view = RunModel(RUN), View()
    for seq, body in enumerate(bodies):
        model.apply(decode([as_line(body, seq, seq * 1_000_000)]))
        fold(view, e.Event(seq=seq, ts=seq * 1_000_000, source="t", body=body))
    return model, view


def created() -> e.Body:
    return e.RunCreated(run=RUN, name="n", fingerprint="f", recipe="", params="")


def queued(number: int, step: str = "s") -> e.Body:
    return e.TaskQueued(run=RUN, task=f"t{number}", step=step, path=str(number), index=number, id=f"row-{number}")


def random_body(rng: random.Random) -> e.Body:
    task, attempt = f"t{rng.randrange(12)}", rng.randrange(1, 4)
    common = {"run": RUN, "task": task, "attempt": attempt}
    return rng.choice(
        [
            queued(rng.randrange(12), rng.choice(["s", "z"])),
            e.TaskLeased(**common, worker="edge", lease=LEASE),
            e.TaskSucceeded(**common, key="k", output="o", tok_in=3, tok_out=2),
            e.AttemptFailed(**common, worker="edge", code="c", message="m", tok_in=1, tok_out=1),
            e.AttemptLost(**common, worker="edge", reason="gone"),
            e.AttemptSuperseded(**common, worker="edge", outcome="succeeded", tok_in=5),
            e.TaskRetried(**common, not_before=0.0),
            e.TaskFailed(**common, code="c", message="m"),
            e.TaskCancelled(**common, reason="asked to"),
        ]
    )


@pytest.mark.parametrize("seed", range(40))
def test_the_counts_are_those_of_the_projection_whatever_comes(seed: int) -> None:
    rng = random.Random(seed)
    model, view = told([created(), *(random_body(rng) for _ in range(150))])
    state = view.runs[RUN]
    for status in (Status.succeeded, Status.failed, Status.cancelled):
        assert model.counts[State[status.value]] == state.count(status), status
    assert {model.ids[place] for place in model.running} == set(state.leased)
    assert model.tokens_in + model.tokens_out == state.spent_tokens
    assert sum(model.counts) == model.total == len(state.tasks)
    assert [sum(step.counts) for step in model.steps] == [
        sum(model.steps_of[p] == n for p in range(model.total)) for n in range(len(model.steps))
    ]


def test_an_event_that_comes_twice_counts_once() -> None:
    model = RunModel(RUN)
    lines = decode([as_line(created(), 0, 0), as_line(queued(0), 1, 1)])
    model.apply((*lines, *lines))
    assert model.total == 1


def test_a_day_that_ends_is_no_fall_back_in_time() -> None:
    model = RunModel(RUN)
    model.apply(decode([as_line(queued(0), 0, 86_399_500_000), as_line(queued(1), 1, 86_400_500_000)]))
    assert model.series.began_s == pytest.approx(86_399.5)
    assert model.last_s == pytest.approx(86_400.5)


def test_an_event_of_a_newer_gx_is_shown_and_counts_for_nothing() -> None:
    model = RunModel(RUN)
    renamed = Line(seq=1, time="2026-01-01T00:00:00.000000Z", type="run.renamed", run=RUN)
    model.apply([msgspec.structs.replace(renamed, raw=b"{}")])
    assert len(model.events) == 1
    assert not model.decisions


def test_containers_cost_from_their_reservation_to_when_they_were_last_seen() -> None:
    reserved = e.ContainerReserved(
        run=RUN, container="c1", gpu="L4", usd_per_s=0.01, timeout_s=1, cold_start_s=1, lease_s=1, window_s=1, at=100
    )
    seen = e.ContainerSeen(run=RUN, container="c1", name="ta-1", began_at=101, at=130)
    model, _ = told([created(), reserved, seen])
    assert model.rented.usd == pytest.approx(0.3)
    assert model.rented.containers["c1"].state == "up"


def test_answers_of_containers_are_counted_together_with_the_pace_of_the_last_half_minute() -> None:
    bodies: list[e.Body] = [created(), *(queued(n) for n in range(5))]
    for n, worker in enumerate(("cloud", "edge", "cloud", "cloud")):
        bodies += [
            e.TaskLeased(run=RUN, task=f"t{n}", attempt=1, worker=worker, lease=LEASE),
            e.AttemptFailed(run=RUN, task=f"t{n}", attempt=1, worker=worker, code="c", message="m", tok_in=90)
            if n == 2
            else e.TaskSucceeded(run=RUN, task=f"t{n}", attempt=1, worker=worker, key="k", output="o", tok_in=200 + n),
        ]
    bodies.append(e.TaskSucceeded(run=RUN, task="t4", attempt=1, worker="cloud", key="k", output="o", cached="f"))
    model, _ = told(bodies)
    assert model.rented.answers == 3
    assert model.rented.tokens_per_s(model.last_s) == pytest.approx((200 + 90 + 203) / PACE_S)
    assert model.rented.tokens_per_s(model.last_s + PACE_S) == 0.0


def test_events_of_one_instant_are_one_mark_and_lose_nothing() -> None:
    lines = decode(
        [as_line(created(), 0, 5_000_000)]
        + [as_line(queued(n), n + 1, 7_000_000) for n in range(4)]
        + [
            as_line(e.TaskSucceeded(run=RUN, task=f"t{n}", attempt=1, key="k", output="o", tok_out=3), n + 5, at)
            for n, at in enumerate((7_000_000, 7_000_000, 9_200_000))
        ]
    )
    whole, parts = RunModel(RUN), RunModel(RUN)
    whole.apply(lines)
    for line in lines:
        parts.apply([line])
    for model in (whole, parts):
        assert model.series.began_s == pytest.approx(7.0)
        assert model.series.ended == [2, 0, 1]
        assert model.series.tokens == [6, 0, 3]
        assert model.series.backlog == [2, 2, 1]


def test_events_of_another_run_are_passed_over() -> None:
    model = RunModel(RUN)
    other = e.TaskQueued(run="r-2", task="t", step="s", path="0", index=0, id="row")
    model.apply(decode([as_line(other, 0, 0), as_line(queued(0), 1, 1)]))
    assert model.total == 1


def test_a_question_stands_until_it_is_answered() -> None:
    asked = e.QuestionAsked(run=RUN, question="q", text="Go on?", choices=("continue", "stop"))
    model, _ = told([created(), asked])
    assert list(model.questions) == ["q"]
    model, _ = told([created(), asked, e.QuestionAnswered(run=RUN, question="q", choice="continue")])
    assert not model.questions
    assert [one.kind for one in model.decisions] == ["run.created", "question.asked", "question.answered"]


def test_buckets_are_bounded_and_lose_nothing() -> None:
    series = Series()
    for second in range(5000):
        series.mark(float(second), backlog=5000 - second, ended=1, tokens=2)
    assert len(series.ended) == len(series.backlog) == len(series.tokens) <= MOST
    assert sum(series.ended) == 5000
    assert sum(series.tokens) == 10_000
    assert series.backlog[-1] == 1


def test_failures_of_one_cause_are_one_whatever_their_numbers() -> None:
    causes = Causes()
    causes.failed("timeout", "no answer within 31.5 s", 4)
    causes.failed("timeout", "no answer within 30.0 s", 9)
    causes.failed("template", "'x' is undefined", 1)
    assert [(cause.code, cause.failed, cause.tasks) for cause in causes.ranked()] == [
        ("timeout", 2, [4, 9]),
        ("template", 1, [1]),
    ]
    assert shape_of("row 'a' of 3") == shape_of("row 'b' of 44")


def test_causes_are_bounded() -> None:
    causes = Causes()
    for number in range(3000):
        causes.attempt("odd", "cause " + "x" * (number % 190) + chr(97 + number % 26))
    assert len(causes.ranked()) <= 1001


def test_no_two_states_share_a_shape_in_either_alphabet() -> None:
    assert set(LOOKS) == set(State)
    assert len({look.shape for look in LOOKS.values()}) == len({look.ascii for look in LOOKS.values()}) == len(State)
    assert all(look.ascii.isascii() for look in LOOKS.values())
