"""A question and a passage as the one text that a reranker scores, as the model's file says.

A newer file carries a template with places for both; else the vocabulary's own marks stand before, between and behind
them, as llama.cpp's server has them (`format_prompt_rerank`).

Invariant: all of a passage is read. One that doesn't fit beside the question is cut into parts, and has the score of
the best of them: MaxP of Dai and Callan, "Deeper Text Understanding for IR" (SIGIR 2019).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edge.engine.llama import Model
from edge.engine.loaded import Loaded
from edge.engine.slots import Tokens
from gx.core.cutting import LEAST_CHARS, halves
from gx.core.errors import GxError, ModelError

LEAST_TOKENS = 32
"""A question that leaves less room for a passage is refused: what is left would be read a few words at a time."""
_PLACES = re.compile(r"\{(query|document)\}")


class Pairs(NamedTuple):
    """The tokens of all pairs, and where those of each passage begin among them: a long passage has several."""

    tokens: list[Tokens]
    starts: list[int]


def encode_pairs(question: str, passages: Sequence[str], loaded: Loaded) -> Pairs:
    """The tokens of the question with each passage, in their order; with each part of one that doesn't fit beside it.

    :raises ModelError: if the model is no reranker, or its file lacks what makes one.
    :raises GxError: (code "question") if the question leaves no room for a passage.
    """
    model, most = loaded.model, loaded.card.context_tokens
    _check(model)
    alone = len(_pair(model, question, ""))
    if most - alone < LEAST_TOKENS:
        raise GxError(
            f"the question is too long to rank passages by: {alone} tokens, and the model takes {most} with a passage",
            code="question",
            hint="ask a shorter one; in a recipe, a memory may have a `query` of its own",
        )
    tokens, starts = list[Tokens](), list[int]()
    for passage in passages:
        starts.append(len(tokens))
        tokens += _parts(model, question, passage, most)
    return Pairs(tokens, starts)


def _parts(model: Model, question: str, passage: str, most: int) -> list[Tokens]:
    pair = _pair(model, question, passage)
    if len(pair) <= most:
        return [pair]
    if len(passage) < LEAST_CHARS:
        raise GxError(f"{len(pair)} tokens of a question and {len(passage)} characters don't fit", code="question")
    first, second = halves(passage)
    return [*_parts(model, question, first, most), *_parts(model, question, second, most)]


def _check(model: Model) -> None:
    if not model.is_reranker:
        raise ModelError(f"{model.path} is no reranker: its file names no ranking", hint="name one that is")
    if not model.has_head:
        raise ModelError(
            f"{model.path} says that it is a reranker, and has no weights that make a score (cls or cls.output)",
            hint="its conversion lost them: get another file of the model",
        )
    if model.pair_template is None and not model.vocab.pair_marks()[1]:
        raise ModelError(
            f"{model.path} has neither a template for a question and a passage nor a token to put between them",
            hint="its conversion lost them: get another file of the model",
        )


def _pair(model: Model, question: str, passage: str) -> Tokens:
    if model.pair_template is not None:
        texts = {"query": model.said(question), "document": model.said(passage)}
        return model.vocab.tokenize(_PLACES.sub(lambda place: texts[place[1]], model.pair_template))
    before, between, after = (np.array(marks, np.int32) for marks in model.vocab.pair_marks())
    parts = [model.vocab.tokenize(text, reads_control=False) for text in (question, passage)]
    return np.concatenate([before, parts[0], between, parts[1], after])
