"""A turn that chooses: the options of its schema weighed by the model, field after field, and the likeliest taken.

It knows fields and their weights; it doesn't know tokens. Each field is weighed after the fields before it, as they
were chosen, in the very JSON that constrained writing would give, so the two can be compared.

Invariant: the answer fits the schema, whatever the weights.
"""

from __future__ import annotations

import threading

import anyio
import msgspec
import numpy as np

from edge.agent import Emit
from edge.baseline import Baseline, baseline_of, request_of
from edge.engine.engine import Weights
from edge.engine.front import Front
from edge.engine.scoring import probabilities
from edge.fields import fields_of
from gx.core.errors import GxError
from gx.core.message import Answer, Failure, Message, Outcome, Scores, Turn, Usage
from gx.core.protocol import Signal

CONTENT_FREE = "N/A"
"""What stands for the last thing that the user said, in a turn that brings no chats to compare it with."""


async def choose(turn: Turn, emit: Emit, *, front: Front, cancelled: threading.Event) -> Outcome:
    """Answer a turn that has a `choice`. Its time runs from here on, also while it waits for its baseline.

    `emit` gets a signal without text as each of its fields begins.

    :raises GxError: (code "choice") if its schema has anything but enums. :raises BenchError: if the engine is closed.
    """
    fields = fields_of(turn.output_schema)
    began_s, waited_s = anyio.current_time(), 0.0
    baseline: Baseline | None = None
    if turn.choice == "calibrated":
        chats = turn.baselines or (_without_content(turn.messages),)
        found = await baseline_of(turn.model, chats, fields, front, cancelled=cancelled, timeout_s=turn.timeout_s)
        if isinstance(found, Failure):
            return found
        baseline, waited_s = found, anyio.current_time() - began_s
    text, scores, usage = "", Scores(), Usage()

    def begun(text: str, tokens_out: int) -> None:
        emit(Signal(task=turn.task, attempt=turn.attempt))

    for number, field in enumerate(fields):
        text += field.opening
        request = request_of(turn.model, turn.messages, text, field)
        request = msgspec.structs.replace(
            request,
            timeout_s=_left_s(turn.timeout_s, waited_s, usage),
            conversation=f"{turn.task} {turn.attempt}",
            goes_on=number < len(fields) - 1,
        )
        weighed = await front.generate(request, on_text=begun, cancelled=cancelled)
        usage = _sum(usage, weighed.usage)
        if isinstance(weighed, Failure):
            return _failure(weighed, turn, usage, f"{number} of {len(fields)} fields were chosen", waited_s)
        if not isinstance(weighed, Weights):
            raise GxError("an answer was written where options were to be weighed", code="internal")
        shares = probabilities(np.array(weighed.log_likelihoods), None if baseline is None else baseline[number])
        scores[field.name] = {o: round(float(s), 6) for o, s in zip(field.options, shares, strict=True)}
        text += field.written[int(shares.argmax())]
    return Answer(value=msgspec.Raw(text.encode()), usage=usage, scores=scores)


def _left_s(timeout_s: float | None, waited_s: float, usage: Usage) -> float | None:
    """What is left of a turn's time after its wait for a baseline, and after the fields so far."""
    if timeout_s is None:
        return None
    return max(0.0, timeout_s - waited_s - (usage.prefill_ms + usage.decode_ms) / 1000)


def _failure(failure: Failure, turn: Turn, usage: Usage, done: str, waited_s: float) -> Failure:
    """A field's failure as the turn's: what all fields took, and of a time-out the turn's own limit."""
    if failure.code != "timeout" or turn.timeout_s is None:
        return msgspec.structs.replace(failure, usage=usage)
    wait = f"; for {waited_s:.1f} s of them it waited for its baseline" if turn.choice == "calibrated" else ""
    message = f"the turn ran longer than {turn.timeout_s:g} s: {done}{wait}"
    return msgspec.structs.replace(failure, message=message, usage=usage)


def _without_content(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The same conversation, the last thing that the user says having no content."""
    last = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
    return tuple(Message(role=m.role, content=CONTENT_FREE) if i == last else m for i, m in enumerate(messages))


def _sum(one: Usage, other: Usage) -> Usage:
    sums = {name: getattr(one, name) + getattr(other, name) for name in Usage.__struct_fields__}
    return Usage(**sums)
