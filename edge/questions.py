"""What a desk asks of a bench and waits for: a number for each question, and the answer that carries it.

It knows numbers and answers; it doesn't know processes or what is asked.

Invariant: each question ends once: by its answer, by a refusal, or by the bench's end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio

from gx.core.errors import BenchError, ModelError
from gx.core.protocol import Counted, Embedded, Leave, Loaded, Ranked, Refused, ToBench

Given = TypeVar("Given", Loaded, Counted, Embedded, Ranked)
Reply = Loaded | Counted | Embedded | Ranked | Refused


class Questions:
    """The open questions of one desk. Numbers are never used twice."""

    def __init__(self) -> None:
        self._open: dict[int, _Question] = {}
        self._last = 0

    @property
    def are_open(self) -> bool:
        """Whether somebody is waiting."""
        return bool(self._open)

    def next_number(self) -> int:
        """A fresh number, for a message whose answer nobody waits for."""
        self._last += 1
        return self._last

    async def ask(self, send: Callable[[ToBench], None], make: Callable[[int], ToBench], kind: type[Given]) -> Given:
        """Send what `make` makes of a fresh number, and wait for its answer, of that `kind`; who is cancelled lets the
        bench know.

        :raises ModelError: if the bench refuses.
        :raises BenchError: if it ends without an answer, or answers something else.
        """
        number = self.next_number()
        question = self._open[number] = _Question()
        try:
            send(make(number))
            await question.settled.wait()
        finally:
            self._open.pop(number, None)
            if not question.settled.is_set():  # whoever asked goes away
                send(Leave(request=number))
        if question.reply is None:
            raise BenchError(question.why)
        if isinstance(question.reply, Refused):
            failure = question.reply.failure
            raise ModelError(failure.message, code=failure.code)
        if not isinstance(question.reply, kind):
            raise BenchError(f"the bench answered with {type(question.reply).__name__} in place of {kind.__name__}")
        return question.reply

    def settle(self, reply: Reply) -> None:
        """Hand an answer to whoever waits for it; the others are for nobody."""
        question = self._open.get(reply.request)
        if question is not None:
            question.reply = reply
            question.settled.set()

    def fail(self, why: str) -> None:
        """End all open questions: whoever should have answered is gone."""
        for question in self._open.values():
            question.why = why
            question.settled.set()


class _Question:
    def __init__(self) -> None:
        self.settled = anyio.Event()
        self.reply: Reply | None = None
        self.why = ""
