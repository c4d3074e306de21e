"""Which parts of a text are nearest to a question: by its words, and by meaning where vectors are there. Pure.

Words count by Okapi BM25 over the parts (Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009), with its
usual constants. Both rankings become one as those of the memory do. The same texts give the same ranking.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from gx.core.memory import fuse

_K1, _B = 1.2, 0.75
_WORD = re.compile(r"\w+")


def ranked(question: str, parts: Sequence[str], near: Sequence[float] | None) -> list[int]:
    """The numbers of all parts, the nearest first; `near` is how near each is by meaning, `None` where nobody knows.

    Those that neither half finds come last, in their order.
    """
    scores = by_words(question, parts)
    text = sorted((n for n in range(len(parts)) if scores[n] > 0), key=lambda n: (-scores[n], n))
    meaning = None if near is None else sorted(range(len(parts)), key=lambda n: (-near[n], n))
    found = [one.key for one in fuse(text, meaning)]
    return [*found, *sorted(set(range(len(parts))).difference(found))]


def by_words(question: str, parts: Sequence[str]) -> list[float]:
    """The BM25 score of each part; 0 for one that has no word of the question."""
    counts = [Counter(words(part)) for part in parts]
    lengths = [count.total() for count in counts]
    mean = sum(lengths) / len(parts) if any(lengths) else 1.0
    weights = {}
    for word in set(words(question)):
        having = sum(word in count for count in counts)
        weights[word] = math.log(1 + (len(parts) - having + 0.5) / (having + 0.5))
    return [
        math.fsum(
            weight * count[word] * (_K1 + 1) / (count[word] + _K1 * (1 - _B + _B * length / mean))
            for word, weight in sorted(weights.items())
            if word in count
        )
        for count, length in zip(counts, lengths, strict=True)
    ]


def words(text: str) -> list[str]:
    """The words of a text, as they are compared."""
    return _WORD.findall(text.casefold())
