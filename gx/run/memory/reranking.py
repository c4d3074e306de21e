"""What a search found in the order of a reranker: how much is found for it, what is scored, the order that comes of it.

It is pure. Invariant: equal scores leave the search's own order, so the same question to the same memory gives the same
answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gx.core.memory import Hit

DEEPER = 4
"""Times as many are found as are asked for."""
MOST = 50
"""The most that are found to be ranked, unless more are asked for: each is a pass over the model."""


def candidates(k: int) -> int:
    """How many are to be found, so that the best `k` of them may be chosen."""
    return max(k, min(DEEPER * k, MOST))


def passage_of(hit: Hit) -> str:
    """What is scored of a memory: what is embedded of it, too."""
    heading = hit.memory.source.heading
    return f"{heading}\n{hit.memory.body}" if heading else hit.memory.body


def ordered(hits: Sequence[Hit], scores: Sequence[float], k: int) -> tuple[Hit, ...]:
    """The best `k` of what a search found, by these scores of it, each with its score and the place that it had."""
    ranked = [
        msgspec.structs.replace(hit, relevance=score, fused_rank=place)
        for place, (hit, score) in enumerate(zip(hits, scores, strict=True), 1)
    ]
    return tuple(sorted(ranked, key=lambda hit: -(hit.relevance or 0.0))[:k])  # sorting keeps the order of equals
