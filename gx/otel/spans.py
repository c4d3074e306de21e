"""What a span says of an attempt, a task, a step and a sitting of a run: pure functions.

No content is in a span: no prompt, answer, parameter, message or reason, and no id of a row, which is the user's own;
a row is told by its index.
"""

from __future__ import annotations

from pathlib import PurePath
from urllib.parse import urlsplit

import msgspec

from gx.core import event as e
from gx.core.ids import mix_seed
from gx.core.recipe import Agent
from gx.otel import conventions as c
from gx.otel.values import Attributes, Span, span_id


class LiveTask(msgspec.Struct, kw_only=True, gc=False):
    """A task that has not ended. Instants are µs; `leased` is when its present attempt began, `None` while it waits.

    `agent` is the one that it was prepared for, `None` before that; `found` counts what the memory gave.
    """

    id: str
    step: str
    index: int
    level: int
    matrix: dict[str, object]
    queued: int
    attempt: int = 1
    failures: int = 0
    agent: Agent | None = None
    model: str = ""
    seed: int = 0
    found: int | None = None
    leased: int | None = None
    worker: str = ""
    gpu: str = ""


class Worked(msgspec.Struct):
    """What a sitting did of a step: from when to when, and how many tasks ended how."""

    start: int
    end: int
    ended: dict[str, int] = {}


def attempt_span(
    trace: str, task: LiveTask, event: e.Event, error: str, tokens: tuple[int, int] | None, more: Attributes
) -> Span:
    """The call of the model that the event ends. `tokens` are those of its prompt and answer, where that is known."""
    began = event.ts if task.leased is None else task.leased
    told: Attributes = {
        c.OPERATION: c.CHAT,
        c.PROVIDER: c.GX,
        c.MODEL: task.model,
        **({} if task.agent is None else _asked_for(task.agent, mix_seed(task.seed, task.failures))),
        **({} if tokens is None else {c.TOKENS_IN: tokens[0], c.TOKENS_OUT: tokens[1]}),
        **more,
        "gx.step": task.step,
        "gx.task": task.id,
        "gx.attempt": task.attempt,
        "gx.worker": task.worker,
        **({"gx.gpu": task.gpu} if task.gpu else {}),
    }
    return Span(
        trace=trace,
        span=span_id(trace, "attempt", task.id, task.attempt),
        parent=span_id(trace, "task", task.id),
        name=f"{c.CHAT} {task.model}",
        is_client=True,
        start=began,
        end=max(began, event.ts),
        attributes=told,
        error=error,
        seq=event.seq,
    )


def task_span(
    trace: str, sitting: int, task: LiveTask, event: e.Event, status: str, error: str, more: Attributes
) -> Span:
    """The work of an agent on one input, which the event ends."""
    agent: Attributes = {} if task.agent is None else {c.AGENT: task.agent.name, c.MODEL: task.model}
    told: Attributes = {
        c.OPERATION: c.INVOKE_AGENT,
        c.PROVIDER: c.GX,
        **agent,
        **more,
        "gx.step": task.step,
        "gx.task": task.id,
        "gx.row.index": task.index,
        "gx.status": status,
        "gx.attempts": task.attempt,
        **({"gx.level": task.level} if task.level else {}),
        **({} if task.found is None else {"gx.memories": task.found}),
    }
    return Span(
        trace=trace,
        span=span_id(trace, "task", task.id),
        parent=span_id(trace, "step", task.step, sitting),
        name=c.INVOKE_AGENT if task.agent is None else f"{c.INVOKE_AGENT} {task.agent.name}",
        start=task.queued,
        end=max(task.queued, event.ts),
        attributes=told,
        error=error,
        seq=event.seq,
    )


def step_span(trace: str, sitting: int, name: str, done: Worked, seq: int) -> Span:
    """What a sitting did of a step."""
    return Span(
        trace=trace,
        span=span_id(trace, "step", name, sitting),
        parent=span_id(trace, "run", sitting),
        name=f"step {name}",
        start=done.start,
        end=done.end,
        attributes={"gx.step": name, **counted([done])},
        seq=seq,
    )


def run_span(
    trace: str, sitting: int, run: str, name: str, began: int, event: e.Event, how: tuple[str, str], told: Attributes
) -> Span:
    """A sitting of the run; `how` it ended is its status and its class of error."""
    status, error = how
    return Span(
        trace=trace,
        span=span_id(trace, "run", sitting),
        name=f"{c.INVOKE_WORKFLOW} {name}",
        start=began,
        end=max(began, event.ts),
        attributes={
            c.OPERATION: c.INVOKE_WORKFLOW,
            c.WORKFLOW: name,
            "gx.run": run,
            "gx.sitting": sitting,
            "gx.status": status,
            **told,
        },
        error=error,
        seq=event.seq,
    )


def counted(worked: list[Worked]) -> Attributes:
    """How many tasks ended how."""
    total: dict[str, int] = {}
    for done in worked:
        for status, count in done.ended.items():
            total[status] = total.get(status, 0) + count
    return {f"gx.tasks.{status}": count for status, count in sorted(total.items())}


def model_name(source: str) -> str:
    """A model's source without what is nobody's business: of a path or an address only the file's name."""
    if source.startswith("hf:"):
        return source
    if "://" in source:
        return PurePath(urlsplit(source).path).name or "model"
    return PurePath(source).name


def _asked_for(agent: Agent, seed: int) -> Attributes:
    """What of the sampling the conventions have a name for; stop strings are texts, and stay here."""
    drawn = agent.sampling
    told = {
        c.MAX_TOKENS: drawn.max_tokens,
        c.TEMPERATURE: float(drawn.temperature),
        c.TOP_K: None if drawn.top_k is None else float(drawn.top_k),
        c.TOP_P: drawn.top_p,
        c.PRESENCE: drawn.presence_penalty,
        c.FREQUENCY: drawn.frequency_penalty,
    }
    kept: Attributes = {name: value for name, value in told.items() if value is not None}
    return kept | {c.SEED: seed, c.OUTPUT_TYPE: "text" if agent.output is None else "json"}
