"""Which prompts of a run are looked at before they are prepared, because they may not fit their model's context.

A look takes a while, and preparing may not: so a task that needs one waits here, among those that aren't prepared, and
is prepared when its answer is there. Invariants: a prompt that fits for sure is never looked at, and nobody waits for
a bench on its account; what was left out of a prompt is written with its `task.prepared`, and nothing looks again at a
task that has that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import anyio

from gx.core.errors import BenchError, GxError, ours
from gx.core.event import Shortened
from gx.core.message import Turn
from gx.core.ports import Near, Worker
from gx.run.long.condensing import Part
from gx.run.long.fitting import LEAST_ANSWER_TOKENS, Wanted, shortened

AT_ONCE = 4
"""Prompts of a run that are looked at."""
SURE_TOKENS = 1024
"""A model's context is taken to hold that much as long as no bench said what it holds."""
_TEMPLATE_TOKENS = 64
"""What a chat template may put around each message, and in front of the first: its own system message, as a rule."""
_TRIES = 3
"""How many benches may be lost under one look."""


class Seen(NamedTuple):
    """What a look said of a prompt for that model: what is left out, `None` where nothing is, or is condensed first."""

    model: str
    shortened: Shortened | None
    parts: tuple[Part, ...] = ()


class Looks:
    """The looks of one run. Without a `bench` to ask, as in a rehearsal, every prompt is taken as it is."""

    def __init__(self, near: Near | None) -> None:
        self.bench: Callable[[], Awaitable[Worker | None]] | None = None
        self._near = near
        self._contexts: dict[str, int] = {}
        self._wanted: dict[str, Callable[[], Wanted]] = {}
        self._under_way: set[str] = set()
        self._known: dict[str, Seen | GxError] = {}
        self.notes: dict[str, None] = {}
        """What any of the looks takes a while for, each sentence once."""
        self._news = anyio.Event()

    def __repr__(self) -> str:
        return f"<Looks {len(self._wanted)} wanted, {len(self._under_way)} under way, {len(self._known)} known>"

    def is_waited_for(self, task: str) -> bool:
        """Whether the task waits for its look."""
        return task in self._wanted or task in self._under_way

    def known(self, task: str, model: str) -> Seen | None:
        """What a look at the task's prompt said; `None` without one, or where it was for another model.

        :raises GxError: if it can't be looked at.
        """
        found = self._known.get(task)
        if isinstance(found, GxError):
            raise found
        return found if found is not None and found.model == model else None

    def surely_fits(self, turn: Turn, context_tokens: int | None) -> bool:
        """Whether the prompt fits whatever its tokens are: none is shorter than a byte.

        `context_tokens` is what the recipe says of the model's context.
        """
        known = self._contexts.get(turn.model)
        most = (known or min(SURE_TOKENS, context_tokens or SURE_TOKENS)) - LEAST_ANSWER_TOKENS
        size = _TEMPLATE_TOKENS * (len(turn.messages) + 1)
        for message in turn.messages:
            size += len(message.content)  # characters first: most texts that are too long have too many of these
            if size > most:
                return False
        return size + sum(len(m.content.encode()) - len(m.content) for m in turn.messages) <= most

    def want(self, task: str, wanted: Callable[[], Wanted]) -> None:
        """Look at the task's prompt, which `wanted` makes when its turn comes."""
        if task not in self._under_way:
            self._wanted[task] = wanted
            self._news.set()

    def forget(self, task: str) -> None:
        """What was said of it stands elsewhere by now."""
        self._known.pop(task, None)

    async def serve(self, over: anyio.Event, on_seen: Callable[[], None]) -> None:
        """Look until the run is `over`, and say when an answer is there."""
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(self._look_on, on_seen)
            await over.wait()
            group.cancel_scope.cancel()

    async def _look_on(self, on_seen: Callable[[], None]) -> None:
        while True:
            while not self._wanted:
                self._news = anyio.Event() if self._news.is_set() else self._news
                await self._news.wait()
            task = next(iter(self._wanted))
            wanted = self._wanted.pop(task)
            self._under_way.add(task)
            try:
                asked = wanted()
                self._known[task] = await self._look(asked)
            except Exception as error:  # noqa: BLE001  whatever a row does to us, the others go on
                self._known[task] = ours(error)
            finally:
                self._under_way.discard(task)
            on_seen()

    async def _look(self, wanted: Wanted) -> Seen:
        """One look. A bench that is lost meanwhile is nobody's fault. :raises GxError: if each is, or it can't be."""
        for tries_left in reversed(range(_TRIES)):
            worker = None if self.bench is None else await self.bench()
            if worker is None:  # the run ends, and says why
                break
            try:
                found = await shortened(wanted, worker, self._near, self._note)
                self._contexts[wanted.turn.model] = (await worker.describe(wanted.turn.model)).context_tokens
                if isinstance(found, tuple):
                    return Seen(wanted.turn.model, None, found)
                return Seen(wanted.turn.model, found)
            except BenchError:
                if not tries_left:
                    raise
        return Seen(wanted.turn.model, None)

    def _note(self, note: str) -> None:
        self.notes[note] = None
