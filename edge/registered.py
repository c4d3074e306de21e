"""The models that a worker may use: where each is, whether the bench that is up knows it, and what makes it slow.

It knows a model by its digest, and speaks to no bench: who tells one of a model says so here.

Invariant: what a bench knows and says of models is forgotten when another one is up, and when a model is registered
anew that is elsewhere by now.
"""

from __future__ import annotations

from collections.abc import Collection

import anyio.to_thread

from edge.cpu import cpu_sets
from edge.slowness import warnings
from gx.core.errors import ModelError
from gx.core.message import ModelCard
from gx.core.protocol import Load


class Registered:
    """The models of one worker."""

    def __init__(self) -> None:
        self._places: dict[str, Load] = {}
        self._introduced = set[str]()
        """Those that the bench knows."""
        self._cards: dict[str, ModelCard] = {}
        """Of those that it has loaded."""
        self._foretold: dict[str, tuple[str, ...]] = {}
        """What a file's header warns of, by its path."""

    def __repr__(self) -> str:
        return f"<Registered: {len(self._places)} models, {len(self._introduced)} introduced>"

    def add(self, load: Load) -> None:
        """Register a model, by what tells a bench of it. The same once more changes nothing."""
        if self._places.get(load.digest) != load:
            self._foretold.pop(load.path, None)
            self._cards.pop(load.digest, None)
            self._places[load.digest] = load
            self._introduced.discard(load.digest)

    def place(self, digest: str) -> Load:
        """What tells a bench of a model, but for the request's number. :raises ModelError: if it isn't registered."""
        if digest not in self._places:
            hint = "register it before it is used"
            raise ModelError(f"no model with the digest {digest[:12]} is registered", hint=hint)
        return self._places[digest]

    def is_introduced(self, digest: str) -> bool:
        """Whether the bench that is up was told of a model."""
        return digest in self._introduced

    def introduced(self, digest: str) -> None:
        """The bench that is up was told of a model."""
        self._introduced.add(digest)

    def described(self, card: ModelCard) -> None:
        """The bench that is up has loaded a model, and describes it."""
        self._cards[card.digest] = card

    def slots(self, most: int, in_use: Collection[str] = ()) -> int:
        """How many of the bench's `most` slots there are in truth: those that the models `in_use` have room for, by
        their digests; where none is, the one that has the most. It shows once they are loaded: `most` before.
        """
        rooms = {digest: card.slots for digest, card in self._cards.items() if digest in self._introduced}
        room = sum(rooms.get(digest, 0) for digest in in_use) or max(rooms.values(), default=0)
        return min(most, room) if room else most

    def forget_bench(self) -> None:
        """Another bench is up: it knows no model, and may be another build."""
        self._introduced.clear()
        self._cards.clear()
        self._foretold.clear()

    async def warnings(self, digest: str, *, build: str) -> tuple[tuple[str, ...], bool]:
        """What makes a model slow on this machine with that build of the engine, in sentences, and whether that is all:
        how much there is room for shows once it was loaded. :raises ModelError: if it isn't registered.
        """
        path = self.place(digest).path
        if (card := self._cards.get(digest)) is not None:
            return card.warnings, True
        if path not in self._foretold:
            found = await anyio.to_thread.run_sync(lambda: warnings(path, build=build, has=cpu_sets()))
            self._foretold[path] = found
        return self._foretold[path], False
