"""The record on stdout: one a row of the output step, succeeded or not (DESIGN §4).

Batch-API input gives batch-API output: https://platform.openai.com/docs/api-reference/batch/request-output.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gx.core.task import Status
from gx.core.view import TaskState
from gx.run import likelihoods

_ERASED = ("erased", "the result was erased")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A finished task and its result; `output` and `input` are JSON bytes, `likelihoods` those of the blob."""

    task: TaskState
    output: bytes | None = None
    input: bytes | None = None
    likelihoods: bytes | None = None

    def as_dict(self, *, with_input: bool = False) -> dict[str, Any]:
        """The record as it is printed."""
        task = self.task
        row: dict[str, Any] = {"id": task.row_id, "index": task.index, "step": task.step, "status": task.status.value}
        if task.matrix:
            row["matrix"] = task.matrix
        if self.output is not None:
            row["output"] = msgspec.json.decode(self.output)
            if task.finish != "stop":
                row["finish"] = task.finish
            if self.likelihoods is not None:
                row |= likelihoods.as_record(self.likelihoods)
        else:
            code, message = task.error or _ERASED
            row["error"] = {"code": code, "message": message}
        row["usage"] = {"tokens_in": task.tokens_in, "tokens_out": task.tokens_out, "ms": round(task.ms, 1)}
        row["cached"] = task.cached is not None
        if with_input and self.input is not None:
            row["input"] = msgspec.json.decode(self.input)
        return row

    def as_batch(self, *, model: str) -> dict[str, Any]:
        """The record as a line of an OpenAI batch's output file."""
        task = self.task
        line: dict[str, Any] = {"id": f"batch_req_{task.id}", "custom_id": task.row_id, "response": None, "error": None}
        if task.status is not Status.succeeded or self.output is None:
            code, message = task.error or _ERASED
            return line | {"error": {"code": code, "message": message}}
        value = msgspec.json.decode(self.output)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": value if isinstance(value, str) else self.output.decode()},
            "logprobs": likelihoods.as_openai(self.likelihoods) if self.likelihoods is not None else None,
            "finish_reason": "stop" if task.finish == "stop" else "length",
        }
        body = {
            "id": f"chatcmpl-{task.id}",
            "object": "chat.completion",
            "model": model,
            "choices": [choice],
            "usage": {
                "prompt_tokens": task.tokens_in,
                "completion_tokens": task.tokens_out,
                "total_tokens": task.tokens_in + task.tokens_out,
            },
        }
        return line | {"response": {"status_code": 200, "request_id": task.id, "body": body}}
