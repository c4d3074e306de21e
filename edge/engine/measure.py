"""How fast a model is on this machine, and how far two files of one model are apart. It knows models, and no requests.

Speeds are of what the engine does: prompts of a few neighbouring slots in calls of one pass, behind a beginning that
all slots share, then a decode of all slots. Divergence is of the distributions of the next token along a text:
Kullback-Leibler, in nats, and how often the likeliest token is the same. Of an embedding model it is how fast texts are
read, in the batches that the engine makes of them, and the cosine of the two vectors of a text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate, cycle, pairwise, takewhile
from statistics import median
from typing import NamedTuple

import numpy as np

from edge.engine.embedding import LONGEST_TEXT_TOKENS, TEXTS_TOKENS, Vectors, batches
from edge.engine.llama import PASS_TOKENS, Context, Encoder, Fed, Model, Rows, gpu_free_bytes, offloads
from edge.engine.memory import claim_of, gpu_room, layers_that_fit
from edge.engine.slots import Copy, Cut, Tokens
from edge.engine.tuning import ROW_PROMPT_TOKENS, UNTUNED, Speeds, Tuning
from edge.header import read_header
from gx.core.message import Value

__all__ = ["SLOT_TOKENS", "Divergence", "Encoded", "Speeds", "divergence", "encoded", "likeness", "opened", "speeds"]

DECODE_STEPS = 4
DIVERGENCE_TOKENS = 1024
SHARED_TOKENS = 256
TEXT_CHARACTERS = (40, 120, 250, 500, 800, 1000)
"""The lengths of the texts that an embedding model is measured with, in turn: from a question to a part of a page."""
MEASURED_TOKENS = 16_384
"""What the caches of a measurement hold, at most."""
SLOT_TOKENS = 512
"""What a slot is given here: the shared beginning, a prompt and an answer need no more."""


class Divergence(Value, frozen=True, kw_only=True):
    """Over `tokens` places: the mean Kullback-Leibler divergence, and the share with the same likeliest token."""

    kl: float
    same_best: float
    tokens: int


@contextmanager
def opened(path: str) -> Iterator[Model]:
    """A model to be measured, with as many layers on a GPU as that has room for now.

    :raises ModelError: if it can't be loaded.
    """
    layers, room = None, gpu_room(gpu_free_bytes()) if offloads() else None
    if room is not None:
        header, texts = read_header(path), (TEXTS_TOKENS, LONGEST_TEXT_TOKENS)
        cache_bytes = MEASURED_TOKENS * ((header and header.token_bytes()) or 0)
        claim = claim_of(path, context_tokens=SLOT_TOKENS, text_tokens=texts, cache_bytes=cache_bytes)
        layers = layers_that_fit(claim, room)
    model = Model("measured", path, gpu_layers=layers)
    try:
        yield model
    finally:
        model.close()


def speeds(
    model: Model,
    *,
    threads: int,
    slots: int,
    tuning: Tuning = UNTUNED,
    repeats: int = 3,
    is_enough: Callable[[Speeds], bool] = lambda first: False,
) -> Speeds:
    """The medians of `repeats` measurements of a loaded model; of fewer, once `is_enough` says so of those so far.

    :raises ModelError: if no such context can be made. :raises BenchError: if it can't decode.
    """
    context = Context(model, slots=slots, slot_tokens=SLOT_TOKENS, threads=threads, tuning=tuning)
    try:
        shared = _tokens(SHARED_TOKENS, model) if model.can_share else _tokens(0, model)
        if len(shared):
            context.decode([Fed(0, 0, shared, "none")])
            context.move([Copy(0, slot, len(shared)) for slot in range(1, slots)])
        context.decode([Fed(slot, len(shared), _tokens(1, model), "none") for slot in range(slots)])  # it copies, too
        found: list[tuple[float, float]] = []
        while len(found) < repeats:
            found.append(_once(context, model, slots, len(shared)))
            now = _medians(found, slots)
            if is_enough(now):
                break
        return now
    finally:
        context.close()


def divergence(reference: Model, other: Model, text: str, *, threads: int) -> Divergence:
    """Compare two files of one model, with the same vocabulary, along the first `DIVERGENCE_TOKENS` of a text."""
    tokens = reference.vocab.tokenize(text)[:DIVERGENCE_TOKENS]
    ours, theirs = (_log_probabilities(model, tokens, threads) for model in (reference, other))
    kl = float((np.exp(ours) * (ours - theirs)).sum(axis=1).mean())
    same = float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())
    return Divergence(kl=kl, same_best=same, tokens=len(tokens))


class Encoded(NamedTuple):
    """Tokens a second of texts, the median of the repeats, and their vectors, [n_texts, dimensions] float32."""

    tokens_per_s: float
    vectors: Vectors


def encoded(model: Model, text: str, *, threads: int, repeats: int = 3) -> Encoded:
    """Embed a text, cut into texts of `TEXT_CHARACTERS`, with an embedding model.

    :raises ModelError: if there isn't the memory for it. :raises BenchError: if llama.cpp can't encode.
    """
    texts = _texts(model, text)
    encoder = Encoder(model, threads=threads, batch_tokens=TEXTS_TOKENS)
    try:
        lengths = [len(tokens) for tokens in texts]
        dealt = batches(lengths, batch_tokens=TEXTS_TOKENS, batch_texts=encoder.batch_texts)
        encoder.encode([texts[0]])  # the first call makes what the later ones use
        vectors = np.empty((len(texts), encoder.dimensions), np.float32)
        took_s: list[float] = []
        for _ in range(repeats):
            began_s = time.perf_counter()
            for batch in dealt:
                vectors[batch] = encoder.encode([texts[index] for index in batch])
            took_s.append(time.perf_counter() - began_s)
        return Encoded(tokens_per_s=sum(lengths) / median(took_s), vectors=vectors)
    finally:
        encoder.close()


def likeness(ours: Vectors, theirs: Vectors) -> float:
    """The least cosine of the two vectors of a text."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)).min())


def _once(context: Context, model: Model, slots: int, n_shared: int) -> tuple[float, float]:
    """Prompt tokens a second, and tokens a second of all slots together."""
    context.move([Cut(slot, n_shared) for slot in range(slots)])
    prompt = _tokens(ROW_PROMPT_TOKENS, model)
    prompted = range(min(slots, max(PASS_TOKENS, context.pass_tokens) // ROW_PROMPT_TOKENS))
    at_once = max(1, context.pass_tokens // ROW_PROMPT_TOKENS)
    began_s = time.perf_counter()
    for first in prompted[::at_once]:
        context.decode([Fed(slot, n_shared, prompt, "last") for slot in prompted[first : first + at_once]])
    prefill_s = time.perf_counter() - began_s
    held = [n_shared + (ROW_PROMPT_TOKENS if slot in prompted else 0) for slot in range(slots)]
    began_s = time.perf_counter()
    for step in range(DECODE_STEPS):
        context.decode([Fed(slot, held[slot] + step, prompt[:1], "last") for slot in range(slots)])
    decode_s = time.perf_counter() - began_s
    return len(prompted) * ROW_PROMPT_TOKENS / prefill_s, slots * DECODE_STEPS / decode_s


def _texts(model: Model, text: str) -> list[Tokens]:
    """A text in pieces of `TEXT_CHARACTERS`, none longer than the model takes; what is left of it is left out."""
    ends = takewhile(lambda end: end <= len(text), accumulate(cycle(TEXT_CHARACTERS), initial=0))
    pieces = (model.vocab.tokenize(text[start:end], adds_special=True) for start, end in pairwise(ends))
    return [piece[: model.context_tokens(TEXTS_TOKENS)] for piece in pieces]


def _medians(found: list[tuple[float, float]], slots: int) -> Speeds:
    prefill, decode = (median(values) for values in zip(*found, strict=True))
    return Speeds(prefill=prefill, decode=decode, slots=slots)


def _tokens(n_tokens: int, model: Model) -> Tokens:
    return (np.arange(n_tokens) % min(1000, model.vocab.n_tokens)).astype(np.int32)


def _log_probabilities(model: Model, tokens: Tokens, threads: int) -> Rows:
    """Of the next token at each place, [n_tokens, n_vocab]."""
    context = Context(model, slots=1, slot_tokens=DIVERGENCE_TOKENS, threads=threads)
    try:
        parts = [
            context.decode([Fed(0, start, tokens[start : start + PASS_TOKENS], "all")]).copy()
            for start in range(0, len(tokens), PASS_TOKENS)
        ]
    finally:
        context.close()
    rows: Rows = np.concatenate(parts)
    rows -= rows.max(axis=1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return rows
