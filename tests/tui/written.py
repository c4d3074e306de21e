"""A run in a log, written event by event, that has something in every view of the monitor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gx.core import event as e
from gx.core.ids import digest
from gx.core.task import EdgeLease
from gx.core.terms import Terms
from gx.run.log import EventLog

BEGAN_S = 1_700_000_000.0
RUN, OLDER = "triage-k3m9xq", "triage-a2b4c6"
RECIPE = """\
version: 1
name: triage
models: {m: ./model.gguf}
agents: {triager: {model: m}, editor: {model: m}}
steps:
  - {id: triage, for_each: inputs, agent: triager, prompt: "{{ item.text }}"}
  - {id: replies, for_each: triage, needs: [triage], agent: editor, prompt: "{{ item }}"}
  - {id: report, reduce: triage, needs: [triage], agent: editor, prompt: "{{ items }}"}
"""
LEASE = EdgeLease(epoch=1, incarnation=1)
ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31mred\x00\u202etxt"
"""What a terminal would obey: clear the screen, set the title, a C1 colour, and text from right to left."""


class Written:
    """Events with their times; `at_s` is when the next ones are."""

    def __init__(self) -> None:
        self.at_s = BEGAN_S
        self._blobs: dict[str, e.Blob] = {}
        self._batches: list[tuple[float, list[e.Body]]] = []

    def put(self, content: str) -> str:
        ref = digest(content.encode())
        self._blobs[ref] = e.Blob(digest=ref, content=content.encode())
        return ref

    def add(self, *bodies: e.Body) -> None:
        self._batches.append((self.at_s, list(bodies)))

    def begin(self, run: str, **more: Any) -> None:
        recipe, params = self.put(RECIPE), self.put("{}")
        made = e.RunCreated(
            run=run,
            name="triage",
            fingerprint=run,
            recipe=recipe,
            params=params,
            by="ada",
            started_at=self.at_s,
            **more,
        )
        self.add(made)

    def queue(self, run: str, number: int, step: str = "triage", row: str | None = None) -> str:
        task = digest(f"{run} {step} {number}".encode())[:16]
        item = self.put(json.dumps({"text": f"The app fails, case {number}."}))
        made = e.TaskQueued(
            run=run, task=task, step=step, path=str(number), index=number, id=row or f"T-{number:03}", item=item
        )
        self.add(made)
        return task

    def lease(self, run: str, task: str, attempt: int = 1, prompt: str = "Sort this.") -> None:
        part = e.PromptPart(role="user", content=self.put(prompt))
        self.add(
            e.TaskPrepared(run=run, task=task, attempt=attempt, key=f"k-{task}", model="m" * 64, prompt=(part,)),
            e.TaskLeased(run=run, task=task, attempt=attempt, worker="edge", lease=LEASE),
        )

    def succeed(self, run: str, task: str, answer: Any, attempt: int = 1, **more: Any) -> None:
        cost = {"worker": "edge", "ms": 1500.0, "tok_in": 70, "tok_out": 30} if "cached" not in more else {}
        output = self.put(json.dumps(answer))
        self.add(e.TaskSucceeded(run=run, task=task, attempt=attempt, key=f"k-{task}", output=output, **(cost | more)))

    def write(self, folder: Path) -> Path:
        """The log in that folder, as a node would have written it."""
        folder.mkdir(parents=True, exist_ok=True)
        now = [BEGAN_S]
        with EventLog.open(folder, now=lambda: now[0]) as log:
            for at_s, bodies in self._batches:
                now[0] = at_s
                log.append_sync(bodies, list(self._blobs.values()), source="node:1")
                self._blobs = {}
        return folder


def a_run(*, answer: Any = None, row: str | None = None) -> Written:
    """An older run that is over, and one that goes on: tasks in every state, failures, a container, a question."""
    w = Written()
    w.begin(OLDER)
    w.succeed(OLDER, w.queue(OLDER, 0), "fine")
    w.add(e.RunFinished(run=OLDER, succeeded=1, failed=0))
    w.at_s += 5
    w.begin(RUN, budget_tokens=50_000, burst=Terms(mode="auto", gpu=("L4",), max_containers=2, usd=2.0))
    tasks = [w.queue(RUN, n, row=row if n == 0 else None) for n in range(60)]
    w.add(e.StepUnfolded(run=RUN, step="triage", tasks=60))
    for n, task in enumerate(tasks[:44]):
        w.at_s += 0.4 + 0.3 * (n % 5)
        w.lease(RUN, task)
        if n % 11 == 7:
            why = ("truncated", f"the answer was cut after {60 + n} tokens") if n % 2 else ("timeout", "no answer")
            w.add(
                e.AttemptFailed(run=RUN, task=task, attempt=1, worker="edge", code=why[0], message=why[1], tok_in=9),
                e.TaskFailed(run=RUN, task=task, attempt=1, code=why[0], message=why[1]),
            )
        elif n % 9 == 4:
            w.succeed(RUN, task, "as before", cached="f" * 16)
        else:
            w.succeed(RUN, task, answer if n == 0 and answer is not None else {"category": "bug", "urgency": "low"})
    w.lease(RUN, tasks[44])
    w.add(e.AttemptLost(run=RUN, task=tasks[44], attempt=1, worker="edge", reason="its bench died"))
    w.add(e.TaskCancelled(run=RUN, task=tasks[59], attempt=1, reason="asked to", by="ada"))
    for task in tasks[45:49]:
        w.lease(RUN, task)
    for number in range(3):
        w.queue(RUN, number, step="replies")
    w.add(
        e.PlacementDecided(run=RUN, verdict="burst", reason="12 tasks are left and the deadline is near", gpu="L4"),
        e.ContainerReserved(
            run=RUN, container="c-1", gpu="L4", usd_per_s=0.000222, timeout_s=60, cold_start_s=9, lease_s=60,
            window_s=20, at=w.at_s - 20,
        ),
        e.ContainerSeen(run=RUN, container="c-1", name="ta-01", began_at=w.at_s - 15, at=w.at_s),
        e.StepPaused(run=RUN, step="report", by="rule hopeless"),
        e.QuestionAsked(run=RUN, question="spend", text="Spend two dollars more?", choices=("continue", "stop")),
    )  # fmt: skip
    return w
