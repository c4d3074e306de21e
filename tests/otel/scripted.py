"""A run as its events, at instants that a test sets: 100 µs apart, unless it says otherwise."""

from __future__ import annotations

from gx.core import event as e
from gx.core.ids import task_id
from gx.core.task import CloudLease, EdgeLease, Lease
from gx.flow.params import resolve_params
from gx.flow.parse import parse_recipe
from gx.flow.plan import Plan, make_plan
from gx.otel.measuring import Measures
from gx.otel.tracing import Tracer
from gx.otel.values import Span

RUN = "triage-abc234"
RECIPE = """\
version: 1
name: triage
models: {m: ./secret-folder/tiny.gguf, big: hf:owner/repo/big.gguf}
agents:
  a: {model: m, persona: You answer., sampling: {temperature: 0.5, top_k: 40, max_tokens: 16, seed: 3, stop: [STOP]}}
  b: {model: big, persona: Be brief., output: {type: object, properties: {x: {type: string}}, required: [x]}}
steps:
  - {id: s, for_each: inputs, agent: a, prompt: "{{ item.text }}", retry: {limit: 2}}
  - {id: r, for_each: s, agent: b, prompt: "{{ item }}"}
"""
STEP_US = 100


def plan() -> Plan:
    recipe = parse_recipe(RECIPE)
    return make_plan(recipe, resolve_params(recipe, {}))


class Script:
    """Events as they are written, and the spans that they end."""

    def __init__(self) -> None:
        self.events: list[e.Event] = []
        self._tracer = Tracer(plan())
        self.measures = Measures(self._tracer)
        self.spans: list[Span] = []

    def add(self, body: e.Body, *, after_us: int = STEP_US) -> list[Span]:
        """The event, and the spans that it ends."""
        ts = (self.events[-1].ts if self.events else 1_000_000) + after_us
        event = e.Event(seq=len(self.events), ts=ts, source="node:1", body=body)
        self.events.append(event)
        made = self._tracer.take(event)
        self.measures.take(event, made)
        self.spans += made
        return made

    def begin(self) -> Script:
        self.add(
            e.RunCreated(run=RUN, name="triage", fingerprint="f", recipe="r", params="p", started_at=1.0, by="ada")
        )
        return self

    def queue(self, index: int = 0, step: str = "s") -> str:
        name = task_id(RUN, step, str(index))
        self.add(
            e.TaskQueued(
                run=RUN, task=name, step=step, path=f"{index}/who=PRIVATE", index=index, id="PRIVATE-row", item="i" * 32
            )
        )
        return name

    def lease(self, task: str, attempt: int = 1, *, worker: str = "edge", lease: Lease | None = None) -> None:
        if attempt == 1:
            self.add(e.TaskPrepared(run=RUN, task=task, attempt=1, key="k", model="m" * 64, prompt=(), seed=3))
        given = lease or EdgeLease(epoch=1, incarnation=1)
        self.add(e.TaskLeased(run=RUN, task=task, attempt=attempt, worker=worker, lease=given))

    def succeed(self, task: str, attempt: int = 1, *, after_us: int = STEP_US, **more: object) -> list[Span]:
        cost = {"worker": "edge", "ms": 1.0, "tok_in": 12, "tok_out": 5, "tok_cached": 4}
        body = e.TaskSucceeded(
            run=RUN,
            task=task,
            attempt=attempt,
            **({"key": "k", "output": "o" * 32} | cost | more),  # type: ignore[arg-type]
        )
        return self.add(body, after_us=after_us)

    def finish(self) -> list[Span]:
        return self.add(e.RunFinished(run=RUN, succeeded=1, failed=0))


CLOUD = CloudLease(call="fc-1", gpu="L4")
