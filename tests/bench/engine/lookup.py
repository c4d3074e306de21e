"""Would drafting from the prompt pay? `python -m tests.bench.engine.lookup`; the engine doesn't do it.

Prompt lookup decoding (Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding): the last 3 tokens, else
fewer, are sought in what was read and written so far, and the k tokens that follow their first place are the draft.
One call decodes the draft with what is due anyway. Verification is Leviathan et al. 2023's
(https://arxiv.org/abs/2211.17192) for greedy draws: what equals the model's own choices counts, and the row after it
gives one token more. The answers stay the same, so written ones are replayed: it is counted what calls it would take.

`summary`, `quote` (JSON) and `repeat` are the packaged model's answers to bundled tickets; it loops at times, and
loops are easily foretold. `labelled` (the right JSON for the bundled mails) and `verbatim` (each ticket once more) are
what a model would write that copies as it should. What a grammar forces is never drawn: it takes rows and no calls,
with a draft or without, so only draws count.

A call's cost is measured on real shapes: `mixed` are sequences of the replay side by side, of which some have a draft
and some none; in `even` ones all have 1 + k rows, as if each were padded to it, and nothing is forced. Times are
medians, taken in rounds, so that what else runs disturbs all alike. A sequence alone costs by its rows, between
those that were measured. Prefill, drafter and the cut of what was rejected are left out, in favour of drafting.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
import yaml

from edge.cpu import default_threads
from edge.engine.engine import Completion, Engine, Request
from edge.engine.llama import Context, Fed, Model
from edge.engine.sampling import Sampler
from edge.engine.shapes import Grammars, JsonSchema
from edge.engine.slots import Copy, Cut
from gx.core.message import Message, Sampling
from tests.tiny_model import packaged_model

N_TEXTS, MAX_TOKENS, DEPTH, SLOT_TOKENS = 24, 96, 300, 512
LONGEST, SHORTEST = 3, (1, 3)
DRAFTS, SEQUENCES = (2, 4, 8), (1, 8, 32)
ROUNDS, SHAPES = 9, {8: 7, 32: 5}
RECIPES = Path(__file__).parents[3] / "recipes"
LENGTHS = {"quote": 160, "product": 40, "customer": 40}
QUOTE: dict[str, Any] = {
    "type": "object",
    "required": [*LENGTHS],
    "additionalProperties": False,
    "properties": {name: {"type": "string", "maxLength": length} for name, length in LENGTHS.items()},
}


class Answer(NamedTuple):
    """A prompt's tokens, the answer's, and which of these were drawn: the others a grammar forced."""

    prompt: list[int]
    tokens: list[int]
    drawn: list[bool]


class Step(NamedTuple):
    """A sequence's part in a call: how many tokens are due, are its draft, were right of it, and were drawn in all."""

    due: int
    draft: int
    right: int
    draws: int


def lookup(tokens: Sequence[int], k: int, shortest: int) -> Sequence[int]:
    """The draft: at most `k` tokens, or none."""
    for n in range(min(LONGEST, len(tokens) - 1), shortest - 1, -1):
        suffix = tokens[-n:]
        for at in range(len(tokens) - n):
            if tokens[at : at + n] == suffix:
                return tokens[at + n : at + n + k]
    return []


def replay(answer: Answer, k: int, shortest: int) -> Iterator[Step]:
    """The calls that an answer takes after its prompt's, whose last row gives the first token."""
    prompt, tokens, drawn = answer
    held = drawn.index(True)  # what is forced before the first choice is read with the prompt
    known = _reach(drawn, held)
    while known < len(tokens):
        draft = lookup(prompt + tokens[:known], k, shortest) if k else []
        right = next((i for i, t in enumerate(draft) if [t] != tokens[known + i : known + i + 1]), len(draft))
        reached = _reach(drawn, known + right)
        yield Step(known - held, len(draft), right, sum(drawn[known:reached]))
        held, known = known + right, reached


def _reach(drawn: Sequence[bool], at: int) -> int:
    """How far the row before `at` leads: a token is drawn, if there is a choice, and then some are forced."""
    at += drawn[at : at + 1] == [True]
    while at < len(drawn) and not drawn[at]:
        at += 1
    return at


def answers(path: str) -> dict[str, list[Answer]]:
    """Those of each kind."""
    model, engine = Model("m", path), Engine()
    engine.register("m", path, 2048)
    editor = yaml.safe_load((RECIPES / "digest.yaml").read_text())["agents"]["editor"]
    clerk = yaml.safe_load((RECIPES / "extract.yaml").read_text())["agents"]["clerk"]
    tickets = [row["text"] for row in _rows("triage/tickets.jsonl")][:N_TEXTS]
    kinds: dict[str, tuple[str, dict[str, Any] | None]] = {
        "summary": (editor["persona"], None),
        "quote": ("Copy facts from the ticket, word by word.", QUOTE),
        "repeat": ("Repeat the text, with its spelling and punctuation corrected.", None),
    }
    found: dict[str, list[Answer]] = {kind: [] for kind in (*kinds, "labelled", "verbatim")}
    for kind, (system, schema) in kinds.items():
        sampling = Sampling(temperature=0, max_tokens=300 if schema else MAX_TOKENS, logprobs=0)
        chats = [_chat(system, text) for text in tickets]
        requests = [Request(model="m", messages=chat, sampling=sampling, output_schema=schema) for chat in chats]
        futures = [engine.submit(request) for request in requests]
        for chat, text, future in zip(chats, tickets, futures, strict=True):
            prompt, result = model.encode(chat).tolist(), future.result(600)
            if isinstance(result, Completion):
                end = [model.vocab.end_token] if result.finish == "stop" and schema is None else []
                drawn = [one.logprob is not None for one in result.logprobs] + [True] * len(end)
                found[kind].append(Answer(prompt, [one.token for one in result.logprobs] + end, drawn))
            if kind == "repeat":
                copy = [*model.vocab.tokenize(text).tolist(), model.vocab.end_token]
                found["verbatim"].append(Answer(prompt, copy, [True] * len(copy)))
    engine.close()
    grammars = Grammars(model.vocab)
    for mail, label in zip(_rows("extract/emails.jsonl"), _rows("extract/labels.jsonl"), strict=True):
        text = "From: {from}\nSubject: {subject}\n\n{body}".format(**mail)
        right = json.dumps({name: label[name] for name in clerk["output"]["properties"]}, ensure_ascii=False)
        prompt = model.encode(_chat(clerk["persona"], text)).tolist()
        found["labelled"].append(Answer(prompt, *_guided(model, grammars, clerk["output"], right.encode())))
    del grammars  # it reads the vocabulary
    model.close()
    return found


def _chat(system: str, text: str) -> tuple[Message, Message]:
    return Message(role="system", content=system), Message(role="user", content=text)


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RECIPES / name).read_text().splitlines()]


def _guided(model: Model, grammars: Grammars, schema: dict[str, Any], rest: bytes) -> tuple[list[int], list[bool]]:
    """A document's tokens as the engine would write them, and which of them it would draw."""
    constraint, sampler = grammars.constraint(JsonSchema(schema=schema)), Sampler(Sampling(temperature=0))
    taken = tokens = constraint.forced()
    drawn = [False] * len(tokens)
    while rest := rest.removeprefix(b"".join(map(model.vocab.piece, taken))):
        row = np.zeros(model.vocab.n_tokens, np.float32)
        row[model.vocab.tokenize(rest.decode())[0]] = 1.0
        taken = [constraint.pick(row, sampler)]
        taken += [] if constraint.is_complete else constraint.forced()
        tokens, drawn = tokens + taken, [*drawn, True, *[False] * (len(taken) - 1)]
        assert rest.startswith(b"".join(map(model.vocab.piece, taken))), rest
    return tokens, drawn


class Clock:
    """Times calls of `n` sequences, of some hundred tokens each."""

    def __init__(self, model: Model, n: int) -> None:
        self._context = Context(model, slots=n, slot_tokens=SLOT_TOKENS, threads=default_threads())
        self._tokens = np.arange(1000, 1000 + DEPTH, dtype=np.int32)
        self._context.decode([Fed(0, 0, self._tokens, "none")])
        self._context.move([Copy(0, slot, DEPTH) for slot in range(1, n)])
        self.ms([(1, 0)] * n)

    def ms(self, shape: Sequence[tuple[int, int]]) -> float:
        """A call to which each sequence brings the tokens that are due, and a draft of so many."""
        fed: list[Fed] = []
        for slot, (due, draft) in enumerate(shape):
            if due > 1:
                fed.append(Fed(slot, DEPTH, self._tokens[: due - 1], "none"))
            fed.append(Fed(slot, DEPTH + due - 1, self._tokens[: 1 + draft], "all"))
        began_s = time.perf_counter()
        self._context.decode(fed).argmax(axis=1)
        seconds = time.perf_counter() - began_s
        self._context.move([Cut(slot, DEPTH) for slot in range(len(shape))])
        return 1000 * seconds


def main() -> None:
    path, dice = str(packaged_model()), random.Random(0)
    drafters = [(0, LONGEST), *((k, shortest) for shortest in SHORTEST for k in DRAFTS)]
    steps = {
        (kind, *drafter): [step for answer in some for step in replay(answer, *drafter)]
        for kind, some in answers(path).items()
        for drafter in drafters
    }
    model = Model("m", path)
    clocks = {n: Clock(model, n) for n in SEQUENCES}
    evens: dict[tuple[int, int], list[float]] = {(n, k): [] for n in SEQUENCES for k in (0, *DRAFTS)}
    mixed: dict[tuple[Any, int], list[float]] = {(cell, n): [] for cell in steps for n in SHAPES}
    for number in range(ROUNDS):
        for n, k in evens:
            evens[n, k].append(clocks[n].ms([(1, k)] * n))
        for cell, n in mixed:
            if number < SHAPES[n]:  # sequences that are each somewhere in its answers, independently of the others
                shape = [(step.due, step.draft) for step in dice.choices(steps[cell], k=n)]
                mixed[cell, n].append(clocks[n].ms(shape))
    even = {which: median(some) for which, some in evens.items()}
    cost = {which: median(some) for which, some in mixed.items()}
    alone = [1 + k for k in (0, *DRAFTS)], [even[1, k] for k in (0, *DRAFTS)]
    for cell, some_steps in steps.items():
        cost[cell, 1] = float(np.interp([step.due + step.draft for step in some_steps], *alone).mean())
    print("a call's ms, even\nsequences " + "".join(f"{f'{1 + k} rows each':>16}" for k in (0, *DRAFTS)))
    for n in SEQUENCES:
        print(f"{n:9} " + "".join(f"{even[n, k]:8.1f} ({even[n, k] / even[n, 0]:4.2f}x)" for k in (0, *DRAFTS)))
    print("\na call's means, and the speed, mixed / even, against no draft")
    print("kind      k suffix drafted right draws" + "".join(f"{f'{n} sequences':>15}" for n in SEQUENCES))
    for (kind, k, shortest), some in steps.items():
        _, draft, right, draws = (fmean(numbers) for numbers in zip(*some, strict=True))
        line = f"{kind:9} {k} {f'{LONGEST}-{shortest}':>6} {draft:7.2f} {right:5.2f} {draws:5.2f}"
        for n in SEQUENCES if k else ():
            gain = cost[(kind, 0, LONGEST), n] / cost[(kind, k, shortest), n]
            line += f"{f'{draws * gain:.2f} / {draws * even[n, 0] / even[n, k]:.2f}':>15}"
        print(line if k else "")


if __name__ == "__main__":
    main()
