"""How fast a model is on this machine, and how far two files of one model are apart. It knows models, and no requests.

Speeds are of what the engine does: a prefill of one pass, and a decode of as many sequences as it runs. Divergence is
of the distributions of the next token along a text: Kullback-Leibler, in nats, and how often the likeliest token is
the same.
"""

from __future__ import annotations

import time

import numpy as np

from edge.engine.llama import PASS_TOKENS, Context, Fed, Model, Rows
from edge.engine.slots import Cut, Tokens
from gx.core.message import Value

DECODE_STEPS = 6
DIVERGENCE_TOKENS = 1024


class Speeds(Value, frozen=True, kw_only=True):
    """Tokens a second: of a prompt, and of `slots` answers together."""

    prefill: float
    decode: float
    slots: int


class Divergence(Value, frozen=True, kw_only=True):
    """Over `tokens` places: the mean Kullback-Leibler divergence, and the share with the same likeliest token."""

    kl: float
    same_best: float
    tokens: int


def speeds(model: Model, *, threads: int, slots: int, repeats: int = 3) -> Speeds:
    """Measure a loaded model: the best of `repeats`, since whatever disturbs only makes it slower."""
    context = Context(model, slots=slots, slot_tokens=PASS_TOKENS + 256, threads=threads)
    try:
        prompt = (np.arange(PASS_TOKENS) % 1000 + 10).astype(np.int32)
        prefill = decode = 0.0
        for _ in range(repeats):
            context.move([Cut(slot, 0) for slot in range(slots)])
            began_s = time.perf_counter()
            context.decode([Fed(0, 0, prompt, "last")])
            prefill = max(prefill, PASS_TOKENS / (time.perf_counter() - began_s))
            for slot in range(1, slots):
                context.decode([Fed(slot, 0, prompt[:16], "none")])
            began_s = time.perf_counter()
            for step in range(DECODE_STEPS):
                starts = [PASS_TOKENS + step, *[16 + step] * (slots - 1)]
                context.decode([Fed(slot, start, prompt[:1], "last") for slot, start in enumerate(starts)])
            decode = max(decode, slots * DECODE_STEPS / (time.perf_counter() - began_s))
        return Speeds(prefill=prefill, decode=decode, slots=slots)
    finally:
        context.close()


def divergence(reference: Model, other: Model, text: str, *, threads: int) -> Divergence:
    """Compare two files of one model, with the same vocabulary, along the first `DIVERGENCE_TOKENS` of a text."""
    tokens = reference.tokenize(text)[:DIVERGENCE_TOKENS]
    ours, theirs = (_log_probabilities(model, tokens, threads) for model in (reference, other))
    kl = float((np.exp(ours) * (ours - theirs)).sum(axis=1).mean())
    same = float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())
    return Divergence(kl=kl, same_best=same, tokens=len(tokens))


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
