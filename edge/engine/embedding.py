"""Texts into vectors or scores: how they are dealt into batches, and their job. Pure but for the encoder's calls.

An encoder attends within each text, so a batch is best of texts of about one length, and small: measured on two cores
with all-MiniLM-L6-v2, batches of 128 to 512 tokens are the fastest, and larger ones fall behind.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge.engine.slots import Tokens
from gx.core.errors import BenchError, ModelError

if TYPE_CHECKING:
    from edge.engine.llama import Encoder

TEXTS_TOKENS = 512
"""The tokens of a batch; more only where a single text is longer."""

LONGEST_TEXT_TOKENS = 2048
"""What an encoder takes at once is computed at once, and its memory grows with that: some 1 GB here."""
Vectors = npt.NDArray[np.float32]  # [n_texts, dimensions] float32


def batches(lengths: Sequence[int], *, batch_tokens: int, batch_texts: int) -> list[list[int]]:
    """Deal texts of these lengths into batches: lists of their indices, similar lengths together, the short ones first.

    A batch has at most `batch_texts` texts and `batch_tokens` tokens; a text longer than that is alone.
    """
    dealt: list[list[int]] = []
    room = 0
    for index in np.argsort(np.asarray(lengths, np.int64), kind="stable").tolist():
        if not dealt or lengths[index] > room or len(dealt[-1]) == batch_texts:
            dealt.append([])
            room = batch_tokens
        dealt[-1].append(index)
        room -= lengths[index]
    return dealt


class Embedding:
    """A request for vectors, or for scores, which aren't normalized.

    With `starts`, the texts are parts of longer ones that begin there, and each of those gets the best of its parts'.
    Its texts are computed a batch at a time, so that neither answers nor other texts are held up by many.
    """

    def __init__(
        self,
        texts: Sequence[Tokens],
        *,
        is_normalized: bool,
        cancelled: threading.Event,
        starts: Sequence[int] | None = None,
    ) -> None:
        self.future: Future[Vectors] = Future()
        self.future.set_running_or_notify_cancel()  # only `cancelled` ends it
        self.cancelled = cancelled
        self._texts, self._is_normalized, self._starts = texts, is_normalized, starts
        self._todo: list[list[int]] | None = None
        self._vectors: Vectors | None = None

    def fail(self, error: Exception) -> None:
        """End without vectors, unless it has them."""
        if not self.future.done():
            self.future.set_exception(error)

    def next(self, encoder: Encoder) -> list[Tokens]:
        """The texts of its next batch; none, and the future has its result, where all are computed."""
        if self._todo is None:
            lengths = [len(text) for text in self._texts]
            self._todo = batches(lengths, batch_tokens=TEXTS_TOKENS, batch_texts=encoder.batch_texts)
            self._vectors = np.empty((len(self._texts), encoder.dimensions), np.float32)
        if not self._todo:
            self._end()
            return []
        return [self._texts[index] for index in self._todo[-1]]  # the longest first, so that the rest never is longer

    def take(self, vectors: Vectors) -> None:
        """Keep those of its next batch; behind the last one, the future has its result."""
        assert self._todo is not None and self._vectors is not None
        self._vectors[self._todo.pop()] = vectors
        if not self._todo:
            self._end()

    def _end(self) -> None:
        assert self._vectors is not None
        if not np.isfinite(self._vectors).all():
            self.fail(ModelError("the model's weights are damaged: what it makes of some texts are no numbers"))
            return
        if self._is_normalized:
            norms = np.linalg.norm(self._vectors, axis=1, keepdims=True)
            np.divide(self._vectors, norms, out=self._vectors, where=norms > 0)
        if self._starts:
            self._vectors = np.maximum.reduceat(self._vectors, list(self._starts), axis=0)
        self.future.set_result(self._vectors)


def advance(jobs: Sequence[Embedding], encoder: Encoder) -> list[Embedding]:
    """Compute the next batch of the first job, and with it those of the others that fit in; which jobs had a part.

    Four requests of one short text each take 0.6 of the time that they take one after the other. Where something goes
    wrong with them together, the first is computed alone: nobody pays for another's text.

    :raises BenchError: if llama.cpp can't encode the first one's.
    """
    first, *others = jobs
    together = list(first.next(encoder))
    if not together:
        return [first]
    parts = [(first, len(together))]
    room = TEXTS_TOKENS - sum(map(len, together))
    for job in others:
        texts = job.next(encoder)
        n_tokens = sum(map(len, texts))
        if texts and n_tokens <= room and len(together) + len(texts) <= encoder.batch_texts:
            together += texts
            room -= n_tokens
            parts.append((job, len(texts)))
    vectors = _encoded(together, encoder) if others else None
    if vectors is None:
        parts = parts[:1]
        vectors = encoder.encode(together[: parts[0][1]])
    start = 0
    for job, n_texts in parts:
        job.take(vectors[start : start + n_texts])
        start += n_texts
    return [job for job, _ in parts]


def _encoded(texts: Sequence[Tokens], encoder: Encoder) -> Vectors | None:
    """The vectors of texts of several jobs; None where it can't be told whose text is to blame that there are none."""
    try:
        vectors = encoder.encode(texts)
    except BenchError:
        return None
    return vectors if np.isfinite(vectors).all() else None
