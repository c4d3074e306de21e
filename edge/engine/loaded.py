"""A model in memory: its weights, its lanes, and what is made when it is first needed. It doesn't know its neighbours.

Invariant: a model that can't be made whole leaves nothing in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge.engine.embedding import LONGEST_TEXT_TOKENS, TEXTS_TOKENS
from edge.engine.gguf import check_header
from edge.engine.lanes import Lanes
from edge.engine.llama import DEFAULT_CONTEXT_TOKENS, Encoder, Model
from edge.engine.memory import Claim, claim_of
from edge.engine.shapes import Grammars
from edge.slowness import few_layers, few_slots
from gx.core.message import ModelCard, Value

MakeLanes = Callable[[Model, int, int], Lanes]
"""Makes the lanes of a model, whose slots have at most so many tokens, and whose caches take at most so many bytes."""
Stamp = tuple[tuple[int, int], ...]
"""(bytes, mtime_ns) of a model's files."""


class Place(Value, frozen=True, kw_only=True):
    """Where a model's file is, and how much context a turn on it gets; `None` leaves that to the bench."""

    path: str
    context_tokens: int | None = None
    adapters: tuple[tuple[str, float], ...] = ()

    def claim(self, context_tokens: int | None, cache_bytes: int) -> Claim:
        """What the model will take, with that context where the place says none, and that much cache at most.

        :raises ModelError: if its file is none, or declares what no model has.
        """
        check_header(self.path)
        return claim_of(
            self.path,
            [path for path, _ in self.adapters],
            context_tokens=self.context_tokens or context_tokens or DEFAULT_CONTEXT_TOKENS,
            text_tokens=(TEXTS_TOKENS, LONGEST_TEXT_TOKENS),
            cache_bytes=cache_bytes,
        )

    def stamp(self) -> Stamp | None:
        """What the files look like from outside; `None` if one isn't there."""
        try:
            found = [Path(path).stat() for path in (self.path, *(path for path, _ in self.adapters))]
        except OSError:
            return None
        return tuple((status.st_size, status.st_mtime_ns) for status in found)


class Loaded:
    """A model in memory with its lanes. The lanes are for the engine's thread alone.

    `claim` is the memory that is kept for it, `since_s` when it was loaded and `used_s` when it was last given back;
    they are its shelf's, as `users` is.

    :raises ModelError: if it can't be loaded.
    """

    def __init__(
        self,
        digest: str,
        place: Place,
        make_lanes: MakeLanes,
        context_tokens: int | None,
        *,
        claim: Claim = Claim(),  # noqa: B008 - a frozen value
        gpu_layers: int | None = None,
    ) -> None:
        self.place, self.claim, self.since_s = place, claim, 0.0
        self.users, self.used_s, self.is_retired = 0, float("-inf"), False
        self._encoder: Encoder | None = None
        self._grammars: Grammars | None = None
        self._making = threading.Lock()  # requests are encoded in several threads
        self.model = Model(digest, place.path, place.adapters, gpu_layers=gpu_layers)
        try:
            tokens = self.model.context_tokens(place.context_tokens or context_tokens)
            if self.model.can_embed:
                tokens = min(tokens, LONGEST_TEXT_TOKENS)
            self.lanes = make_lanes(self.model, tokens, claim.cache)
            warnings = [] if gpu_layers is None else [few_layers(claim.layers, gpu_layers)]
            slots = self.lanes.most_slots if self.model.can_write else 0
            if self.model.can_write and 2 * slots < self.lanes.n_slots:
                warnings.append(few_slots(slots, self.lanes.n_slots))
            self.card: ModelCard = msgspec.structs.replace(
                self.model.card(tokens), slots=slots, warnings=tuple(warnings)
            )
        except BaseException:
            self.model.close()
            raise

    @property
    def grammars(self) -> Grammars:
        """Made with the first schema: it takes a fifth of a second."""
        with self._making:
            if self._grammars is None:
                self._grammars = Grammars(self.model.vocab)
            return self._grammars

    def encoder(self, threads: int) -> Encoder:
        """What embeds texts, made with the first of them. For the engine's thread alone."""
        if self._encoder is None:
            batch_tokens = max(TEXTS_TOKENS, self.card.context_tokens)
            self._encoder = Encoder(self.model, threads=threads, batch_tokens=batch_tokens)
        return self._encoder

    def close(self) -> None:
        self.lanes.close()
        if self._encoder is not None:
            self._encoder.close()
        self.model.close()
