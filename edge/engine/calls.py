"""Which tokens the next calls of `llama_decode` take. Pure: numbers in, numbers out.

A round decodes one token of every answer that is being written, in one call, and then prefills prompts in calls of
their own, up to a budget, so that a long prompt never holds the others up for more than that. The two aren't mixed,
and a prefill takes a few neighbouring slots, because llama.cpp cuts a batch into passes over the weights: a pass takes
as many tokens of each of its sequences, and only sequences with consecutive numbers
(https://github.com/ggml-org/llama.cpp, llama-batch.cpp, split_equal). So what a shape forces, several tokens of an
answer at once, is decoded one a round as well where others write, and at once where nobody does.

Measured on two cores, 64 prompts of 72 tokens beside 32 slots: all in one call 14.6 s, one by one 13.0 s, by eights
12.3 s. Eight answers decode in 29 ms as neighbours, in 51 ms with a gap between each two; to change the places of two
sequences takes 2 to 5 ms, so those that write are kept together (`gather`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

GROUP_SLOTS = 8
"""A prefill of more slots than this stays within one pass."""


class Work(NamedTuple):
    """A slot with `n_tokens` pending: in a prefill a run that is known beforehand, a prompt's or options', of which a
    call takes what the budget allows; of an answer most often one, and more where its shape forces them.
    """

    slot: int
    n_tokens: int
    is_prefill: bool


class Part(NamedTuple):
    """How many tokens of a slot a call takes. The parts of a call are in ascending order of their slots."""

    slot: int
    n_tokens: int


def next_calls(work: Sequence[Work], *, n_writing: int, batch_tokens: int, pass_tokens: int) -> list[list[Part]]:
    """The calls of one round, the one that decodes first. `work` is in the order of arrival.

    `batch_tokens` is the most that a call may take, `pass_tokens` what llama.cpp computes at once. `n_writing` answers
    are held up by the round, those of other contexts included: while they are the most, the prompts get one pass a
    round; while most wait for their prompts, these get a whole batch.
    """
    answers, prompts = ([w for w in work if w.is_prefill is is_prefill] for is_prefill in (False, True))
    most = pass_tokens if len(answers) == 1 else 1
    decode = sorted(Part(w.slot, min(w.n_tokens, most)) for w in answers)
    budget = batch_tokens if len(prompts) >= n_writing else pass_tokens
    chosen = sorted(_share(prompts, budget))
    return ([decode] if decode else []) + _grouped(chosen, batch_tokens, pass_tokens)


def gather(writing: Iterable[int], n_slots: int) -> list[tuple[int, int]]:
    """The pairs of slots that change places so that those that write are neighbours: as few as it takes."""
    slots = set(writing)
    starts = range(n_slots - len(slots) + 1)
    first = max(starts, key=lambda start: len(slots.intersection(range(start, start + len(slots)))))
    home = set(range(first, first + len(slots)))
    return list(zip(sorted(slots - home), sorted(home - slots), strict=True))


def _share(prompts: Sequence[Work], budget: int) -> Iterator[Part]:
    """Deal out the budget: to whoever waits longest, so that no prompt starves, and then to the shortest.

    The first gets no more than half of it where others wait too. A short prompt begins to write soon, and a slot that
    writes keeps the others company.
    """
    oldest, others = prompts[:1], sorted(prompts[1:], key=lambda w: w.n_tokens)
    for work in (*oldest, *others):
        most = max(1, budget // 2) if others and work in oldest else budget
        n_tokens = min(work.n_tokens, most)
        if n_tokens:
            yield Part(work.slot, n_tokens)
        budget -= n_tokens


def _grouped(parts: Iterable[Part], batch_tokens: int, pass_tokens: int) -> list[list[Part]]:
    """Calls of neighbouring slots, from parts in ascending order of their slots."""
    calls: list[list[Part]] = []
    size = 0
    for part in parts:
        call = calls[-1] if calls else []
        is_neighbour = bool(call) and call[-1].slot + 1 == part.slot
        most = batch_tokens if len(call) < GROUP_SLOTS else pass_tokens
        if is_neighbour and size + part.n_tokens <= most:
            call.append(part)
            size += part.n_tokens
        else:
            calls.append([part])
            size = part.n_tokens
    return calls
