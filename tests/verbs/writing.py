"""Runs in a log, written event by event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gx.core import event as e
from gx.core.ids import digest
from gx.core.task import EdgeLease
from gx.run.log import EventLog

RECIPE = """\
version: 1
name: triage
models: {m: ./model.gguf}
agents: {a: {model: m}}
steps: [{id: s, for_each: inputs, agent: a, prompt: "{{ item.text }}"}]
"""
LEASE = EdgeLease(epoch=1, incarnation=1)


class Writing:
    """Events of runs as they are put together; `bodies` and `blobs` go into the log at once."""

    def __init__(self) -> None:
        self.bodies: list[e.Body] = [
            e.NodeStarted(epoch=1, pid=7, host="here"),
            e.BenchStarted(worker="edge", epoch=1, incarnation=1, pid=8, slots=2),
        ]
        self.blobs: dict[str, e.Blob] = {}

    def put(self, content: str) -> str:
        ref = digest(content.encode())
        self.blobs[ref] = e.Blob(digest=ref, content=content.encode())
        return ref

    def begin(self, run: str, **created: Any) -> None:
        recipe, params = self.put(RECIPE), self.put("{}")
        self.bodies.append(
            e.RunCreated(run=run, name="triage", fingerprint=run, recipe=recipe, params=params, by="ada", **created)
        )

    def queue(self, run: str, index: int, row: str, item: Any = None) -> str:
        """A task, not ended."""
        task = digest(f"{run} {index}".encode())[:16]
        ref = self.put(json.dumps(item or {"text": f"row {row}"}))
        self.bodies.append(
            e.TaskQueued(run=run, task=task, step="s", path=str(index), index=index, id=row, item=ref, input=ref)
        )
        return task

    def lease(self, run: str, task: str, attempt: int = 1, key: str = "k") -> None:
        self.bodies.append(e.TaskPrepared(run=run, task=task, attempt=attempt, key=key, model="m" * 64, prompt=()))
        self.bodies.append(e.TaskLeased(run=run, task=task, attempt=attempt, worker="edge", lease=LEASE))

    def succeed(self, run: str, task: str, answer: Any, attempt: int = 1, **more: Any) -> None:
        cost = {"worker": "edge", "ms": 1500.0, "tok_in": 7, "tok_out": 3} if "cached" not in more else {}
        output = self.put(json.dumps(answer))
        self.bodies.append(
            e.TaskSucceeded(run=run, task=task, attempt=attempt, output=output, **({"key": "k"} | cost | more))
        )

    def fail(self, run: str, task: str, code: str = "template", message: str = "no text") -> None:
        self.bodies.append(e.TaskFailed(run=run, task=task, attempt=1, code=code, message=message))

    def write(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        with EventLog.open(folder, now=lambda: 1_700_000_000.0) as log:
            log.append_sync(self.bodies, list(self.blobs.values()), source="node:1")


ONE, TWO = "triage-aaa222", "triage-bbb333"


def two_runs() -> Writing:
    """ONE has an answer, one after a stale one, a failure and a cut text; TWO another answer, and a row less."""
    w = Writing()
    w.begin(ONE)
    tasks = [w.queue(ONE, i, f"T-{i + 1}") for i in range(4)]
    w.lease(ONE, tasks[0])
    w.succeed(ONE, tasks[0], {"category": "bug", "score": 1})
    w.lease(ONE, tasks[1])
    w.bodies.append(e.AttemptLost(run=ONE, task=tasks[1], attempt=1, worker="edge", reason="its node ended"))
    w.succeed(ONE, tasks[1], {"category": "stale"}, attempt=1)
    w.succeed(ONE, tasks[1], {"category": "how-to, or so", "score": 0.5, "tags": ["a"]}, attempt=2)
    w.fail(ONE, tasks[2])
    w.succeed(ONE, tasks[3], "cut te", finish="length")
    w.bodies.append(e.RunFinished(run=ONE, succeeded=3, failed=1))
    w.begin(TWO)
    tasks = [w.queue(TWO, i, f"T-{i + 1}") for i in range(3)]
    w.succeed(TWO, tasks[0], {"category": "billing", "score": 1})
    w.succeed(TWO, tasks[1], {"category": "how-to, or so", "score": 0.5, "tags": ["a"]}, cached="f" * 16)
    w.fail(TWO, tasks[2], message="no text, in other words")
    w.bodies.append(e.RunFinished(run=TWO, succeeded=2, failed=1))
    return w
