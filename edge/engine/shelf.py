"""The models in memory: loaded when first asked for, the least recently used put away when a further one comes.

It knows paths, digests and who is using what; it doesn't know turns. It may be called from any thread. Whoever asks for
a model that is being loaded waits for that one; nobody else does.

Invariant: a model with users is never closed, and is in memory once; those without users make way when weights and
caches together would take more than the budget.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from edge.engine.embedding import BATCH_TOKENS, LONGEST_TEXT_TOKENS
from edge.engine.grammar import Grammars
from edge.engine.lanes import Lanes
from edge.engine.llama import Encoder, Model
from edge.engine.memory import available_bytes
from gx.core.errors import BenchError, ModelError
from gx.core.message import ModelCard, Value

MakeLanes = Callable[[Model, int], Lanes]
"""Makes the lanes of a model, of at most so many tokens each."""


class Place(Value, frozen=True, kw_only=True):
    """Where a model's file is, and how much context a turn on it gets; `None` leaves that to the bench."""

    path: str
    context_tokens: int | None = None
    adapters: tuple[tuple[str, float], ...] = ()


class Loaded:
    """A model in memory with its lanes. The lanes are for the engine's thread alone."""

    def __init__(self, digest: str, place: Place, make_lanes: MakeLanes, context_tokens: int | None) -> None:
        self.place, self.users, self.is_retired = place, 0, False
        self._encoder: Encoder | None = None
        self.model = Model(digest, place.path, place.adapters)
        tokens = self.model.context_tokens(place.context_tokens or context_tokens)
        if self.model.can_embed:
            tokens = min(tokens, LONGEST_TEXT_TOKENS)
        self.lanes = make_lanes(self.model, tokens)
        self.card: ModelCard = self.model.card(tokens)

    @cached_property
    def grammars(self) -> Grammars:
        """Made with the first schema: it takes a fifth of a second."""
        return Grammars(self.model.vocab, self.model.n_vocab, self.model.eog)

    def encoder(self, threads: int) -> Encoder:
        """What embeds texts, made with the first of them. For the engine's thread alone."""
        if self._encoder is None:
            batch_tokens = max(BATCH_TOKENS, self.card.context_tokens)
            self._encoder = Encoder(self.model, threads=threads, batch_tokens=batch_tokens)
        return self._encoder

    @property
    def bytes(self) -> int:
        """What its weights and its caches take."""
        return self.model.size_bytes + self.lanes.bytes

    def close(self) -> None:
        self.lanes.close()
        if self._encoder is not None:
            self._encoder.close()
        self.model.close()


class Shelf:
    """The models by digest. `context_tokens` is the context where a model's own place doesn't say.

    `budget_bytes` is what all may take, None what is free now; `cache_bytes` what a model's cache may come to.
    """

    def __init__(
        self,
        make_lanes: MakeLanes,
        *,
        context_tokens: int | None = None,
        budget_bytes: int | None = None,
        cache_bytes: int = 0,
    ) -> None:
        self._make_lanes, self._context_tokens = make_lanes, context_tokens
        self._budget_bytes = available_bytes() if budget_bytes is None else budget_bytes
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()
        self._places: dict[str, Place] = {}
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._loading: dict[str, threading.Lock] = {}
        self._is_closed = False

    def register(self, digest: str, place: Place) -> None:
        """Say where a model is. Never waits, not even for a load; a new place for a digest counts from its next use."""
        self._places[digest] = place

    def take(self, digest: str) -> Loaded:
        """Use a model, until it is given back, loading it where that's needed.

        :raises ModelError: if it isn't registered, or can't be loaded. :raises BenchError: if the shelf is closed.
        """
        place = self._places.get(digest)
        if place is None:
            raise ModelError(f"no model with the digest {digest[:12]}… is known to this bench", hint="load it first")
        with self._lock:
            if (known := self._known(digest, place)) is not None:
                return known
            turn = self._loading.setdefault(digest, threading.Lock())
        with turn:
            with self._lock:
                if (known := self._known(digest, place)) is not None:
                    return known
                self._trim(_size(place.path) + self._cache_bytes)
            loaded = Loaded(digest, place, self._make_lanes, self._context_tokens)
            with self._lock:
                if self._is_closed:
                    loaded.close()
                    raise BenchError("the engine is closed")
                if digest in self._loaded:
                    self._retire(digest)
                self._loaded[digest] = loaded
                loaded.users += 1
                return loaded

    def give_back(self, loaded: Loaded) -> None:
        """End one use of a model."""
        with self._lock:
            loaded.users -= 1
            if loaded.is_retired and not loaded.users:
                loaded.close()
            else:
                self._trim(0)

    @contextmanager
    def borrow(self, digest: str) -> Iterator[Loaded]:
        """`take` and `give_back`. :raises ModelError: as `take` does."""
        loaded = self.take(digest)
        try:
            yield loaded
        finally:
            self.give_back(loaded)

    def digests(self) -> list[str]:
        """What is loaded, least recently used first."""
        with self._lock:
            return list(self._loaded)

    def close(self) -> None:
        """Put everything away; what is in use, when it is given back."""
        with self._lock:
            self._is_closed = True
            for digest in list(self._loaded):
                self._retire(digest)

    def _known(self, digest: str, place: Place) -> Loaded | None:
        """The model, if it is in memory as it should be, with one use more."""
        if self._is_closed:
            raise BenchError("the engine is closed")
        loaded = self._loaded.get(digest)
        if loaded is None or loaded.place != place:
            return None
        self._loaded.move_to_end(digest)
        loaded.users += 1
        return loaded

    def _trim(self, more_bytes: int) -> None:
        """Put away models without users, the least recently used first, until there is room for `more_bytes`.

        Where none is in use and nothing more comes, the last one stays, however large it is.
        """
        unused = [digest for digest, loaded in self._loaded.items() if not loaded.users]
        if not more_bytes and len(unused) == len(self._loaded):
            unused = unused[:-1]
        for digest in unused:
            if sum(loaded.bytes for loaded in self._loaded.values()) + more_bytes <= self._budget_bytes:
                return
            self._retire(digest)

    def _retire(self, digest: str) -> None:
        loaded = self._loaded.pop(digest)
        loaded.is_retired = True
        if not loaded.users:
            loaded.close()


def _size(path: str) -> int:
    """Of a file; nothing where there is none, which whoever loads it will find out."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0
