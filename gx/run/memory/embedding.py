"""Texts to vectors through whoever embeds, many at a time; also a text that is longer than the model takes.

It knows the port and nothing of models. Invariant: every text gets one vector, of all of it: one that is too long gets
the mean of its parts', never that of its beginning.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from gx.core.cutting import LEAST_CHARS, halves
from gx.core.errors import ModelError
from gx.core.ports import Embedder


async def embed_all(embedder: Embedder, model: str, texts: Sequence[str]) -> list[bytes]:
    """The vector of each text, float32 of norm 1, little-endian.

    :raises ModelError: if the model is no embedding model. :raises BenchError: if the bench can't be kept up.
    """
    try:
        return await embedder.embed(model, texts)
    except ModelError as error:
        if error.code != "context" or not texts:
            raise
        if len(texts) > 1:
            middle = len(texts) // 2
            return [
                *await embed_all(embedder, model, texts[:middle]),
                *await embed_all(embedder, model, texts[middle:]),
            ]
        if len(texts[0]) < LEAST_CHARS:
            raise
    return [mean(await embed_all(embedder, model, halves(texts[0])))]


def mean(vectors: Sequence[bytes]) -> bytes:
    """The mean of vectors of norm 1, of norm 1 too; the first where they add up to nothing."""
    numbers = [array("f", vector) for vector in vectors]
    sums = [math.fsum(parts) for parts in zip(*numbers, strict=True)]
    norm = math.sqrt(math.fsum(one * one for one in sums))
    return array("f", (one / norm for one in sums)).tobytes() if norm else vectors[0]
