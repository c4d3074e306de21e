"""What a model likes anyway: the mean score of each option over other chats than the one that is answered.

Chats about other rows: batch calibration, Zhou et al. 2023, https://arxiv.org/abs/2309.17249. Chats about nothing:
contextual calibration, Zhao et al. 2021, https://arxiv.org/abs/2102.09690. Both take the mean of probabilities; here it
is that of their logarithms, which one chat that the model is sure of can't rule.

The chats are taken through the fields as a turn is: each goes on after what it chose before. So a baseline is of the
chats alone, and all turns of a step share it: who waits for it may leave, and it is computed for the others, and for
those who come soon. What was weighed is kept, so that who comes later finds it further along.

Invariant: it is computed once, however many turns ask for it at a time; and never for nobody.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from weakref import WeakKeyDictionary

import anyio
import numpy as np
import numpy.typing as npt

from edge.engine.engine import Request, Weights, failure_of
from edge.engine.front import Front
from edge.engine.job import CANCELLED
from edge.engine.scoring import probabilities
from edge.fields import Field
from gx.core.errors import BenchError
from gx.core.message import Failure, Message

Baseline = tuple[npt.NDArray[np.float64], ...]
"""For each field the mean logarithms of the options' shares, [n_options]."""
Chat = tuple[Message, ...]
REMEMBERED = 16
"""Baselines that are kept: one for each step, and a few for steps with a matrix."""
LINGER_S = 5.0
"""How long it is computed on when nobody waits: a turn whose time was up is back sooner, the first times."""
FAILED_S = 60.0
"""How long a failure that would come again counts. Not for ever: a model may be given more context meanwhile."""


def request_of(model: str, chat: Chat, text: str, field: Field) -> Request:
    """The options of a field to be weighed, after `text`, with which the answer begins."""
    return Request(model=model, messages=chat, opening=text, options=field.weighed, are_whole=field.are_whole)


async def baseline_of(
    model: str,
    chats: tuple[Chat, ...],
    fields: tuple[Field, ...],
    front: Front,
    *,
    cancelled: threading.Event | None = None,
    timeout_s: float | None = None,
) -> Baseline | Failure:
    """The baseline of `fields` over `chats`; those that the model can't take, as too long ones, are left out.

    A failure if all of them are, or if the engine fails; "cancelled" once `cancelled` is set, and "timeout" after
    `timeout_s` seconds. Those two end the wait, and not what is waited for.
    """
    known = _known.setdefault(front, OrderedDict())
    place = known.setdefault((model, chats, fields), _Place(model, chats, fields))
    known.move_to_end((model, chats, fields))
    for key in [key for key, other in known.items() if not other.is_busy][: max(0, len(known) - REMEMBERED)]:
        if known[key] is not place:
            del known[key]
    return await place.wait(front, cancelled or threading.Event(), timeout_s)


class _Place:
    """A baseline that is computed for whoever waits for it, by a task that is nobody's own.

    It holds no front, except while it computes: it is kept as long as its front lives.
    """

    def __init__(self, model: str, chats: tuple[Chat, ...], fields: tuple[Field, ...]) -> None:
        self._model, self._chats, self._fields = model, chats, fields
        self._weighed: dict[tuple[Chat, str], Weights] = {}  # by chat, and by what its answer began with
        self._task: asyncio.Task[Baseline | Failure] | None = None
        self._ended_s = 0.0
        self._n_waiting = 0
        self._lingering: asyncio.TimerHandle | None = None

    @property
    def is_busy(self) -> bool:
        return self._task is not None and not self._task.done()

    async def wait(self, front: Front, cancelled: threading.Event, timeout_s: float | None) -> Baseline | Failure:
        """The baseline once it is there, or why it wasn't waited for."""
        task = self._begun(front)
        self._n_waiting += 1
        if self._lingering is not None:
            self._lingering.cancel()
        try:
            with front.until(cancelled, timeout_s):
                await asyncio.wait({task})
        finally:
            self._n_waiting -= 1
            if not self._n_waiting and not task.done():
                self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self._give_up, task)
        if task.done():
            return task.result()
        if cancelled.is_set() or timeout_s is None:
            return CANCELLED
        done, whole = len(self._weighed), len(self._chats) * len(self._fields)
        return Failure(
            code="timeout",
            message=f"the turn ran longer than {timeout_s:g} s: the baseline of {len(self._chats)} chats that it is "
            f"compared with takes longer ({done} of {whole} choices are weighed, and kept); raise `timeout`",
        )

    def _begun(self, front: Front) -> asyncio.Task[Baseline | Failure]:
        """The task that computes it, or has; a new one where that had nothing to keep."""
        if self._task is None or not self._counts(self._task):
            self._task = asyncio.create_task(self._compute(front), name="baseline")
            self._task.add_done_callback(self._note_end)
        return self._task

    def _counts(self, task: asyncio.Task[Baseline | Failure]) -> bool:
        """Whether it still runs, or what it came to is worth keeping."""
        if not task.done():
            return True
        if task.cancelled() or task.exception() is not None:
            return False
        found = task.result()
        is_fresh = asyncio.get_running_loop().time() < self._ended_s + FAILED_S
        return not isinstance(found, Failure) or (_is_final(found) and is_fresh)

    def _note_end(self, task: asyncio.Task[Baseline | Failure]) -> None:
        self._ended_s = task.get_loop().time()

    def _give_up(self, task: asyncio.Task[Baseline | Failure]) -> None:
        """Nobody came back: end it, and what it asked of the engine."""
        if not task.done():
            task.cancel()
            self._task = None

    async def _compute(self, front: Front) -> Baseline | Failure:
        texts = dict.fromkeys(self._chats, "")
        means = []
        for field in self._fields:
            texts = {chat: text + field.opening for chat, text in texts.items()}
            failure = await self._weigh(field, texts, front)
            if failure is not None:
                return failure
            texts = {chat: text for chat, text in texts.items() if (chat, text) in self._weighed}
            weighed = [np.array(self._weighed[place].log_likelihoods) for place in texts.items()]
            shares = np.array([probabilities(one) for one in weighed])
            mean = np.log(np.maximum(shares, np.finfo(np.float64).tiny)).mean(axis=0)
            means.append(mean)
            chosen = [field.written[probabilities(one, mean).argmax()] for one in weighed]
            texts = {chat: text + end for (chat, text), end in zip(texts.items(), chosen, strict=True)}
        return tuple(means)

    async def _weigh(self, field: Field, texts: dict[Chat, str], front: Front) -> Failure | None:
        """Weigh what isn't weighed yet, all at once; why it can't go on, if it can't."""
        failed: list[Failure] = []

        async def one(chat: Chat, text: str) -> None:
            try:
                result = await front.generate(request_of(self._model, chat, text, field))
            except BenchError as error:
                result = failure_of(error)
            if isinstance(result, Weights):
                self._weighed[chat, text] = result
            elif isinstance(result, Failure):
                failed.append(result)

        async with anyio.create_task_group() as group:
            for chat, text in texts.items():
                if (chat, text) not in self._weighed:
                    group.start_soon(one, chat, text)
        is_empty = not any(key in self._weighed for key in texts.items())
        return next((failure for failure in failed if is_empty or not _is_final(failure)), None)


_known: WeakKeyDictionary[Front, OrderedDict[tuple[str, tuple[Chat, ...], tuple[Field, ...]], _Place]]
_known = WeakKeyDictionary()


def _is_final(failure: Failure) -> bool:
    """Whether it would come again: it is the chat's own, and not the engine's, nor that of one who ends it."""
    return not failure.retryable and failure.code != CANCELLED.code
