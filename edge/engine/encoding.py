"""From what a caller asks to what the engine runs: messages and texts as tokens, an answer's limits and its shape.

It runs in the caller's thread, reads the model's vocabulary and template, and touches no cache. A request that can't be
answered, whatever the model says, is refused here, with an error that says what was expected, what came, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.engine.job import Job
from edge.engine.llama import Model
from edge.engine.loaded import Loaded
from edge.engine.scoring import Scoring
from edge.engine.shapes import JsonSchema
from edge.engine.slots import Tokens
from edge.engine.writing import Writing
from gx.core.errors import GxError, ModelError

LEAST_ANSWER_TOKENS = 16
"""An answer with less room than this isn't worth a prompt: the turn is refused instead of cut."""


def encode_request(job: Job, loaded: Loaded) -> None:
    """Encode a request and say what is to be written. :raises GxError: if it can't be answered."""
    request, model = job.request, loaded.model
    if not model.can_write:
        kinds = ((model.is_reranker, "a reranker"), (model.can_embed, "an embedding model"))
        what = next((kind for is_it, kind in kinds if is_it), "a model with an encoder")
        raise ModelError(f"{model.path} is {what}: it can't write answers", hint="name a chat model")
    if not request.messages:
        raise GxError("a turn needs at least one message, and this one has none", code="empty")
    text = model.render(request.messages) + request.opening
    job.encoded(_choice(job, loaded, text) if request.options else _answer(job, loaded, text))


def encode_texts(texts: Sequence[str], loaded: Loaded) -> list[Tokens]:
    """The tokens of texts to embed. :raises ModelError: if the model can't. :raises GxError: if a text doesn't fit."""
    model, most = loaded.model, loaded.card.context_tokens
    if not model.can_embed:
        raise ModelError(f"{model.path} is no embedding model: its file names no pooling", hint="name one that is")
    if model.is_reranker:
        raise ModelError(f"{model.path} is a reranker: it makes scores, and no vectors", hint="name an embedding model")
    encoded = [model.vocab.tokenize(text, adds_special=True, reads_control=False) for text in texts]
    for number, tokens in enumerate(encoded):
        if not len(tokens):
            raise GxError(f"text {number} is empty, so there is nothing to embed", code="empty")
        if len(tokens) > most:
            raise GxError(
                f"text {number} is too long to embed: {len(tokens)} tokens, and the model takes {most}",
                code="context",
                hint="split it",
            )
    return encoded


def _answer(job: Job, loaded: Loaded, text: str) -> Writing:
    request, model, shape = job.request, loaded.model, job.request.constraint
    if request.output_schema is not None:
        if shape is not None:
            raise GxError("expected an output schema or a constraint, got both", code="constraint")
        shape = JsonSchema(schema=request.output_schema)
    prompt = _counted(job, model.vocab.tokenize(text))
    return Writing(
        prompt,
        limit_tokens=_limit(prompt, request.sampling.max_tokens, loaded.card.context_tokens),
        sampling=request.sampling,
        constraint=None if shape is None else loaded.grammars.constraint(shape),
        piece=model.vocab.piece,
        eog=frozenset() if request.ignores_end else model.vocab.eog,
    )


def _choice(job: Job, loaded: Loaded, text: str) -> Scoring:
    request, model = job.request, loaded.model
    if len(set(request.options)) < len(request.options) or "" in request.options:
        raise GxError("a choice needs options that differ, and none may be empty", code="choice")
    if request.are_whole and model.vocab.end_token < 0:
        raise GxError(
            f"{model.path} has no token that ends an answer, so it can't weigh whether one ends after an option",
            code="choice",
            hint="let the options be weighed by their beginnings, or write the answer under a schema",
        )
    prompt, options = split(model, text, request.options)
    _counted(job, prompt)
    if request.are_whole:
        options = [[*option, model.vocab.end_token] for option in options]
    longest = max(map(len, options))
    if longest > 1 and not model.can_share:
        raise GxError(f"{model.path} keeps a state that can't be cut back, so it can't weigh options", code="choice")
    _limit(prompt, longest, loaded.card.context_tokens, least=longest)
    return Scoring(prompt, options)


def split(model: Model, text: str, options: Sequence[str]) -> tuple[Tokens, list[list[int]]]:
    """The tokens that a prompt and its options together begin with, and how each option goes on.

    Only what is behind the prompt's last control token is encoded with each option: a prompt may be long.
    """
    prompt = model.vocab.tokenize(text)
    start, part = model.vocab.last_part(text, prompt)
    shared, endings = _split(prompt[start:], [model.vocab.tokenize(part + option) for option in options])
    return prompt[: start + len(shared)], endings


def _counted(job: Job, prompt: Tokens) -> Tokens:
    """The prompt, once its job knows how long it is. :raises GxError: (code "empty") if it is no prompt."""
    job.count_prompt(len(prompt))
    if not len(prompt):
        raise GxError("the prompt is empty: the model's chat template made nothing of these messages", code="empty")
    return prompt


def _split(prompt: Tokens, wholes: Sequence[Tokens]) -> tuple[Tokens, list[list[int]]]:
    """Cut encoded texts where they stop to agree with the prompt.

    An option's first characters may be one token with the prompt's last ones, so the whole is encoded, and then cut.
    """
    common = max(0, min(len(prompt), *(len(whole) - 1 for whole in wholes)))  # a token of each option is its own
    for whole in wholes:
        differs = np.flatnonzero(whole[:common] != prompt[:common])
        common = int(differs[0]) if len(differs) else common
    return prompt[:common], [whole[common:].tolist() for whole in wholes]


def _limit(prompt: Tokens, max_tokens: int, context_tokens: int, least: int = LEAST_ANSWER_TOKENS) -> int:
    """How long the answer may get. :raises GxError: (code "context") if it has less room than `least`."""
    left = context_tokens - len(prompt)
    if max_tokens <= left:
        return max_tokens
    if left >= least:
        return left
    raise GxError(
        f"the prompt doesn't fit: {len(prompt)} prompt tokens and max_tokens {max_tokens} are more than the context of "
        f"{context_tokens} tokens",
        code="context",
        hint="shorten the prompt, split the input, or give the model a longer context",
    )
