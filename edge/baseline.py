"""What a model likes anyway: the mean score of each option over other chats than the one that is answered.

Chats about other rows: batch calibration, Zhou et al. 2023, https://arxiv.org/abs/2309.17249. Chats about nothing:
contextual calibration, Zhao et al. 2021, https://arxiv.org/abs/2102.09690. Both take the mean of probabilities; here it
is that of their logarithms, which one chat that the model is sure of can't rule.

The chats are taken through the fields as a turn is: each goes on after what it chose before. So a baseline is of the
chats alone, and all turns of a step share it.

Invariant: it is computed once, however many turns ask for it at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import anyio
import numpy as np
import numpy.typing as npt

from edge.engine.engine import Request, Result, Weights
from edge.engine.front import Front
from edge.engine.scoring import probabilities
from edge.fields import Field
from gx.core.errors import BenchError, GxError
from gx.core.message import Failure, Message

Baseline = tuple[npt.NDArray[np.float64], ...]
"""For each field the mean logarithms of the options' shares, [n_options]."""
Chat = tuple[Message, ...]
REMEMBERED = 16
"""Baselines that are kept: one for each step, and a few for steps with a matrix."""


def request_of(model: str, chat: Chat, text: str, field: Field) -> Request:
    """The options of a field to be weighed, after `text`, with which the answer begins."""
    return Request(model=model, messages=chat, opening=text, options=field.weighed, are_whole=field.are_whole)


async def baseline_of(
    model: str, chats: tuple[Chat, ...], fields: tuple[Field, ...], front: Front
) -> Baseline | Failure:
    """The baseline of `fields` over `chats`; those that the model can't take, as too long ones, are left out.

    A failure if all of them are, or if the engine fails. :raises BenchError: if the engine is closed.
    """
    known = _known.setdefault(front, OrderedDict())
    place = known.setdefault((model, chats, fields), _Place())
    known.move_to_end((model, chats, fields))
    while len(known) > REMEMBERED:
        known.popitem(last=False)
    async with place.lock:
        if place.found is None or isinstance(place.found, Failure):
            place.found = await _compute(model, chats, fields, front)
        return place.found


class _Place:
    """A baseline that is computed by whoever comes first."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.found: Baseline | Failure | None = None


_known: WeakKeyDictionary[Front, OrderedDict[tuple[str, tuple[Chat, ...], tuple[Field, ...]], _Place]]
_known = WeakKeyDictionary()


async def _compute(model: str, chats: Sequence[Chat], fields: Sequence[Field], front: Front) -> Baseline | Failure:
    texts = dict.fromkeys(chats, "")
    means = []
    for field in fields:
        requests = [request_of(model, chat, text + field.opening, field) for chat, text in texts.items()]
        results = dict(zip(texts, await _generate(requests, front), strict=True))
        failed = [result for result in results.values() if isinstance(result, Failure)]
        weighed = {chat: result.log_likelihoods for chat, result in results.items() if isinstance(result, Weights)}
        broken = next((failure for failure in failed if failure.retryable or not weighed), None)
        if broken is not None:
            return broken
        shares = np.array([probabilities(np.array(one)) for one in weighed.values()])
        mean = np.log(np.maximum(shares, np.finfo(np.float64).tiny)).mean(axis=0)
        means.append(mean)
        chosen = [probabilities(np.array(one), mean).argmax() for one in weighed.values()]
        texts = {
            chat: texts[chat] + field.opening + field.written[option]
            for chat, option in zip(weighed, chosen, strict=True)
        }
    return tuple(means)


async def _generate(requests: Sequence[Request], front: Front) -> list[Result]:
    """All at once, in the order of the requests."""
    results: dict[int, Result] = {}
    errors: list[GxError] = []

    async def one(number: int) -> None:
        try:
            results[number] = await front.generate(requests[number])
        except BenchError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for number in range(len(requests)):
            group.start_soon(one, number)
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(requests))]
