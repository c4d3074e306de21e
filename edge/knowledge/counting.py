"""The tokens of texts by an embedding model's own vocabulary, for cutting documents to its measure.

It loads the model's file through llama.cpp, so it belongs into a process that may end with it, and only where documents
are cut; the weights are mapped, not read. Nothing is computed but tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.knowledge.pieces import Count
from gx.core.errors import BenchError
from gx.core.extras import installing

CHARS_A_TOKEN = 3
"""Characters that are taken for a token where no model says; English has four and a bit, other languages less."""


MOST_CHARS_A_TOKEN = 16
"""A word whose letters a vocabulary lacks is one token, however long it is; so a text has at least a token for so many
characters, which is three times what any language needs, or its parts could be of any length.
"""


def tokens_of(path: str) -> Count:
    """What counts the tokens of texts by the model in that file, with those that stand around every text.

    :raises ModelError: if it can't be loaded. :raises BenchError: if the engine isn't installed.
    """
    try:
        from edge.engine.llama.model import Model
    except ImportError as error:
        raise BenchError(f"the engine needs {error.name}, which is not installed", hint=installing("edge")) from None
    model = Model("", path)

    def count(texts: Sequence[str]) -> list[int]:
        tokens = (len(model.vocab.tokenize(text, adds_special=True)) for text in texts)
        return [max(n, len(text) // MOST_CHARS_A_TOKEN) for n, text in zip(tokens, texts, strict=True)]

    return count


def about(texts: Sequence[str]) -> list[int]:
    """About as many tokens as most models make of texts, where there is none to ask."""
    return [2 + -(-len(text) // CHARS_A_TOKEN) for text in texts]
