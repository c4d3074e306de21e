"""Which spans a run's events end, and what is in them."""

from __future__ import annotations

import msgspec

from gx.core import event as e
from gx.core.ids import mix_seed
from gx.otel.spans import model_name
from gx.otel.tracing import Tracer
from gx.otel.values import Span
from tests.otel.scripted import CLOUD, RUN, Script, plan


def test_a_task_that_succeeds_is_a_call_in_a_task_in_a_step_in_a_run() -> None:
    script = Script().begin()
    task = script.queue()
    script.lease(task)
    call, work = script.succeed(task, after_us=2_000_000)
    step, run = script.finish()
    assert [one.name for one in (call, work, step, run)] == [
        "chat tiny.gguf", "invoke_agent a", "step s", "invoke_workflow triage",
    ]  # fmt: skip
    assert [call.parent, work.parent, step.parent, run.parent] == [work.span, step.span, run.span, ""]
    assert len({one.trace for one in script.spans}) == 1
    assert (call.is_client, work.is_client, step.is_client, run.is_client) == (True, False, False, False)


def test_times_are_those_of_the_events() -> None:
    script = Script().begin()
    task = script.queue()
    queued = script.events[-1].ts
    script.lease(task)
    leased = script.events[-1].ts
    call, work = script.succeed(task, after_us=2_000_000)
    step, run = script.finish()
    assert (call.start, call.end) == (leased, leased + 2_000_000)
    assert (work.start, work.end) == (queued, call.end) == (step.start, step.end)
    assert (run.start, run.end) == (script.events[0].ts, script.events[-1].ts)


def test_a_call_says_what_was_asked_for_and_what_it_took_by_the_conventions_names() -> None:
    script = Script().begin()
    task = script.queue()
    script.lease(task)
    call, work = script.succeed(task, finish="length")
    assert call.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "gx",
        "gen_ai.request.model": "tiny.gguf",
        "gen_ai.request.max_tokens": 16,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_k": 40.0,
        "gen_ai.request.seed": 3,
        "gen_ai.output.type": "text",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.response.finish_reasons": ("length",),
        "gx.step": "s",
        "gx.task": task,
        "gx.attempt": 1,
        "gx.worker": "edge",
    }
    assert work.attributes["gen_ai.operation.name"] == "invoke_agent"
    assert work.attributes["gen_ai.agent.name"] == "a"
    assert work.attributes["gx.row.index"] == 0


def test_each_failed_attempt_is_a_call_with_its_error_and_its_own_seed() -> None:
    script = Script().begin()
    task = script.queue()
    script.lease(task)
    message = "PRIVATE: the answer was PRIVATE"
    failed = e.AttemptFailed(
        run=RUN, task=task, attempt=1, worker="edge", code="schema", message=message, tok_in=3, tok_out=2
    )
    (first,) = script.add(failed)
    script.add(e.TaskRetried(run=RUN, task=task, attempt=1, not_before=0.0))
    script.lease(task, 2, worker="modal", lease=CLOUD)
    second, work = script.succeed(task, 2)
    assert (first.error, second.error, work.error) == ("schema", "", "")
    assert first.span != second.span and first.parent == second.parent == work.span
    assert second.attributes["gen_ai.request.seed"] == mix_seed(3, 1)
    assert (second.attributes["gx.worker"], second.attributes["gx.gpu"]) == ("modal", "L4")
    assert first.attributes["gen_ai.usage.input_tokens"] == 3


def test_a_lost_attempt_ends_where_it_was_lost_and_what_it_says_later_is_no_span() -> None:
    script = Script().begin()
    task = script.queue()
    script.lease(task)
    (lost,) = script.add(e.AttemptLost(run=RUN, task=task, attempt=1, worker="edge", reason="PRIVATE"))
    assert lost.error == "lost"
    script.lease(task, 2)
    late = e.AttemptSuperseded(run=RUN, task=task, attempt=1, worker="edge", outcome="answer", tok_in=7, tok_out=1)
    assert script.add(late) == []
    assert script.succeed(task, 1) == [], "a stale attempt changes nothing"
    assert len(script.succeed(task, 2)) == 2
    assert script.succeed(task, 2) == [], "a task ends once"


def test_what_is_answered_from_the_log_is_no_call() -> None:
    script = Script().begin()
    (work,) = script.succeed(script.queue(), worker=None, cached="f" * 16)
    assert (work.name, work.attributes["gx.is_cached"]) == ("invoke_agent", True)


def test_a_task_that_cannot_be_prepared_is_a_task_with_an_error() -> None:
    script = Script().begin()
    task = script.queue()
    (work,) = script.add(e.TaskFailed(run=RUN, task=task, attempt=1, code="template", message="PRIVATE"))
    assert (work.error, work.attributes["gx.status"]) == ("template", "failed")


def test_a_route_is_followed_from_the_next_prompt_on() -> None:
    script = Script().begin()
    task = script.queue()
    script.add(e.StepRouted(run=RUN, step="s", model="big"))
    script.lease(task)
    call, _ = script.succeed(task)
    assert call.attributes["gen_ai.request.model"] == "hf:owner/repo/big.gguf"


def test_each_sitting_of_a_run_is_a_root_of_the_same_trace() -> None:
    script = Script().begin()
    first, second = script.queue(0), script.queue(1)
    script.lease(first)
    script.succeed(first)
    *_, stopped = script.add(e.RunStopped(run=RUN, limit="budget", reason="PRIVATE"))
    script.add(e.RunResumed(run=RUN))
    script.lease(second)
    script.succeed(second)
    *_, finished = script.finish()
    assert (stopped.error, finished.error) == ("budget", "")
    assert stopped.trace == finished.trace and stopped.span != finished.span
    assert [one.attributes["gx.sitting"] for one in (stopped, finished)] == [1, 2]
    assert finished.attributes["gx.tasks.succeeded"] == 1, "those of this sitting"
    assert len({one.span for one in script.spans}) == len(script.spans)


def test_a_run_whose_node_died_goes_on_in_the_same_sitting() -> None:
    script = Script().begin()
    task = script.queue()
    script.lease(task)
    script.add(e.RunResumed(run=RUN))
    script.add(e.AttemptLost(run=RUN, task=task, attempt=1, worker="edge", reason="its node died"))
    script.lease(task, 2)
    script.succeed(task, 2)
    script.finish()
    roots = [one for one in script.spans if not one.parent]
    assert [root.attributes["gx.sitting"] for root in roots] == [1]


def test_whoever_folds_the_same_events_tells_the_same_spans() -> None:
    script = Script().begin()
    for index in range(3):
        task = script.queue(index)
        script.lease(task)
        script.succeed(task)
    script.finish()
    again = Tracer(plan())
    found: list[Span] = [span for event in script.events for span in again.take(event)]
    assert found == script.spans
    assert all(len(span.trace) == 32 and len(span.span) == 16 for span in found)
    assert again.tasks == {}, "what has ended is not held"


def test_nothing_that_is_content_is_in_a_span() -> None:
    test_each_failed_attempt_is_a_call_with_its_error_and_its_own_seed()
    script = Script().begin()
    task = script.queue()
    script.lease(task)
    script.add(e.TaskCancelled(run=RUN, task=task, attempt=1, reason="PRIVATE", by="PRIVATE"))
    script.add(e.RunCancelled(run=RUN, reason="PRIVATE", by="PRIVATE"))
    text = msgspec.json.encode(script.spans).decode()
    for mark in ("PRIVATE", "secret-folder", "STOP", "ada"):
        assert mark not in text
    assert [span.error for span in script.spans] == ["cancelled", "cancelled", "", "cancelled"]


def test_a_model_is_told_by_its_name_and_not_by_its_place() -> None:
    names = {
        "smollm2": "smollm2",
        "/home/ada/m.gguf": "m.gguf",
        "https://ada:pw@models.example/x/m.gguf?k=1#sha256=ab": "m.gguf",
        "hf:o/r/m.gguf": "hf:o/r/m.gguf",
    }
    assert {source: model_name(source) for source in names} == names
