"""A turn that chooses: the options of its schema weighed by the model, field after field, and the likeliest taken.

It knows schemas of enums and turns; it doesn't know tokens. Each field is weighed after the fields before it, as they
were chosen, in the very JSON that constrained writing would give, so the two can be compared.

Invariant: the answer fits the schema, whatever the weights.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge.engine.engine import Completion, Request, Weights
from edge.engine.front import Front
from edge.engine.scoring import probabilities
from gx.core.errors import GxError
from gx.core.message import Answer, Failure, Message, Outcome, Scores, Turn, Usage

CONTENT_FREE = "N/A"
"""What stands for the last thing that the user said, in a turn that brings no chat about nothing."""


class Field(NamedTuple):
    """A choice to make: its name, the text before it, and its options as they would be written, with what follows."""

    name: str
    opening: str
    options: tuple[str, ...]
    values: tuple[Any, ...]


async def choose(turn: Turn, *, front: Front, cancelled: threading.Event) -> Outcome:
    """Answer a turn that has a `choice`.

    :raises GxError: (code "choice") if its schema has anything but enums. :raises BenchError: if the engine is closed.
    """
    text, scores, usage = "", Scores(), Usage()
    for field in fields_of(turn.output_schema):
        text += field.opening
        request = msgspec.structs.replace(
            _request(turn, turn.messages, text, field), timeout_s=_left_s(turn.timeout_s, usage)
        )
        weighed = await front.generate(request, cancelled=cancelled)
        if not isinstance(weighed, Weights):
            return _unweighed(weighed)
        empties: list[Weights] = []
        for chat in turn.baselines or (_without_content(turn.messages),) if turn.choice == "calibrated" else ():
            empty = await front.remembered(_request(turn, chat, text, field))
            if not isinstance(empty, Weights):
                return _unweighed(empty)
            empties.append(empty)
        shares = probabilities(np.array(weighed.log_likelihoods), _mean(empties) if empties else None)
        scores[field.name] = {_name(v): round(float(s), 6) for v, s in zip(field.values, shares, strict=True)}
        text += field.options[int(shares.argmax())]
        usage = _sum(usage, weighed.usage)
    return Answer(value=msgspec.Raw(text.encode()), usage=usage, scores=scores)


def fields_of(schema: dict[str, Any] | None) -> Iterator[Field]:
    """The choices that a schema leaves. :raises GxError: (code "choice") if it has anything but enums."""
    if schema is not None and "enum" in schema:
        yield Field("", "", tuple(map(_json, schema["enum"])), tuple(schema["enum"]))
        return
    properties: dict[str, Any] = (schema or {}).get("properties", {})
    if not properties or not all(isinstance(field, dict) and field.get("enum") for field in properties.values()):
        raise GxError(
            "a choice needs an output schema that is an enum, or an object whose every property is one", code="choice"
        )
    for number, (name, field) in enumerate(properties.items(), start=1):
        opening = f"{'{' if number == 1 else ''}{_json(name)}: "
        after = "}" if number == len(properties) else ", "
        yield Field(name, opening, tuple(_json(v) + after for v in field["enum"]), tuple(field["enum"]))


def _request(turn: Turn, messages: tuple[Message, ...], text: str, field: Field) -> Request:
    """All rows of a step ask the same of a chat about nothing, so no time limit is in it."""
    return Request(model=turn.model, messages=messages, opening=text, options=field.options, are_whole=field.name == "")


def _left_s(timeout_s: float | None, usage: Usage) -> float | None:
    """What is left of a turn's time after the fields so far."""
    return None if timeout_s is None else max(0.0, timeout_s - (usage.prefill_ms + usage.decode_ms) / 1000)


def _unweighed(result: Completion | Failure) -> Failure:
    if isinstance(result, Failure):
        return result
    raise GxError("an answer was written where options were to be weighed", code="internal")


def _mean(weights: Sequence[Weights]) -> npt.NDArray[np.float64]:
    """The logarithm of the options' mean likelihoods, [n_options]."""
    rows = np.array([one.log_likelihoods for one in weights])
    mean: npt.NDArray[np.float64] = np.logaddexp.reduce(rows, axis=0) - np.log(len(rows))
    return mean


def _without_content(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The same conversation, the last thing that the user says having no content."""
    last = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
    return tuple(Message(role=m.role, content=CONTENT_FREE) if i == last else m for i, m in enumerate(messages))


def _sum(one: Usage, other: Usage) -> Usage:
    sums = {name: getattr(one, name) + getattr(other, name) for name in Usage.__struct_fields__}
    return Usage(**sums)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _name(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)
