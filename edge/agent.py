"""One turn of an agent: its messages go to the engine, and what comes back becomes an answer.

It knows turns and answers; it doesn't know pipes, retries or seeds (whoever made the turn mixed those in already).

Invariant: an `Answer`'s value is always JSON: the document that the output schema asked for, byte for byte as the
model wrote it, or a text as a string: all of it where it fits a grammar, else without the space around it and the
thoughts before it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from edge.engine.engine import Completion, Request, Weights
from edge.engine.front import Front
from edge.engine.llama import THOUGHTS
from edge.engine.shapes import context_free
from gx.core.errors import BenchError
from gx.core.message import Answer, Failure, Outcome, Turn
from gx.core.protocol import Signal

Emit = Callable[[Signal], None]

_EXCERPT_CHARS = 400


async def take_turn(turn: Turn, emit: Emit, *, front: Front, cancelled: threading.Event) -> Outcome:
    """Run a turn to its end and return what it came to.

    `emit` gets the text as it comes, on the event loop. Setting `cancelled` ends the turn between two tokens, as the
    failure "cancelled".

    :raises BenchError: if the engine is closed.
    """
    request = Request(
        model=turn.model,
        messages=turn.messages,
        sampling=turn.sampling,
        output_schema=turn.output_schema,
        constraint=None if turn.grammar is None else context_free(turn.grammar),
        timeout_s=turn.timeout_s,
        conversation=f"{turn.task} {turn.attempt}",
    )

    def on_text(text: str, tokens_out: int) -> None:
        emit(Signal(task=turn.task, attempt=turn.attempt, text=text, tokens_out=tokens_out))

    result = await front.generate(request, on_text=on_text, cancelled=cancelled)
    if isinstance(result, Weights):
        raise BenchError("options were weighed that nobody had asked for")
    if turn.grammar is not None and isinstance(result, Completion):
        return _answer(msgspec.json.encode(result.text), result)
    return outcome_of(result, has_schema=turn.output_schema is not None)


def outcome_of(result: Completion | Failure, *, has_schema: bool) -> Outcome:
    """What an engine's result is worth to a task.

    The grammar vouches for a document's shape; that it parses is still checked, because a value that doesn't would
    only be found out by whoever reads the log.
    """
    if isinstance(result, Failure):
        return result
    text = result.text.strip()
    if not has_schema:
        return _spoken(text, result)
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        return Failure(
            code="invalid",
            message=f"the answer isn't JSON though it was constrained to a schema: {error}",
            detail=text[:_EXCERPT_CHARS],
            usage=result.usage,
        )
    return _answer(text.encode(), result)


def _spoken(text: str, written: Completion) -> Outcome:
    """What was said; not what was thought before, by a model that thinks though it isn't asked to."""
    end = next((end for begin, end in THOUGHTS.items() if text.startswith(begin)), None)
    if end is not None:
        _, ended, text = text.partition(end)
        if not ended:
            return Failure(
                code="truncated",
                message=f"the model thought for {written.usage.tokens_out} tokens, and hadn't answered by then",
                retryable=False,
                usage=written.usage,
            )
    return _answer(msgspec.json.encode(text.strip()), written)


def _answer(value: bytes, written: Completion) -> Answer:
    return Answer(value=msgspec.Raw(value), usage=written.usage, finish=written.finish, logprobs=written.logprobs)
