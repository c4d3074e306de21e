"""How often an answer is the same, token by token, alone and in company: `python -m tests.bench.engine.company`.

Draws depend on a request's seed alone, but logits depend on company: llama.cpp's kernels sum in another order for
other sizes of a batch, and near ties fall differently. This says how much of that reaches the answers of the packaged
model, or of the one named by `--model`. Every figure is of an engine of its own, whose cache is empty at first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence

from edge.engine.engine import Completion, Engine, Request
from gx.core.message import Message, Sampling
from tests.tiny_model import packaged_model

N_PROMPTS, N_TOKENS = 24, 48
COMPANIES = (7, 31)
KINDS = {
    "greedy": Sampling(max_tokens=N_TOKENS, logprobs=0),
    "sampled": Sampling(max_tokens=N_TOKENS, logprobs=0, temperature=0.8, seed=7),
}
_SUBJECTS = ("a lighthouse", "the tides", "old bicycles", "honey bees", "a railway town", "rice", "thunder", "glass")
_TASKS = ("Tell a short story about {}.", "Explain {} to a child.", "List five facts about {}.", "Write a poem: {}.")


def prompts() -> list[str]:
    """As many as the largest company has members: first those that are compared, then those that keep them company."""
    return [task.format(subject) for task in _TASKS for subject in _SUBJECTS]


def write(engine: Engine, texts: Sequence[str], sampling: Sampling) -> list[list[int]]:
    """The tokens of the answers to `texts`, asked all at once."""
    requests = [
        Request(model="m", messages=(Message(role="user", content=text),), sampling=sampling, ignores_end=True)
        for text in texts
    ]
    results = [future.result(600) for future in [engine.submit(request) for request in requests]]
    return [[one.token for one in result.logprobs] for result in results if isinstance(result, Completion)]


def in_company(model: str, n_others: int, sampling: Sampling) -> list[list[int]]:
    """The answers to the first `N_PROMPTS` prompts, each while `n_others` are written beside it."""
    engine = Engine(slots=n_others + 1)
    engine.register("m", model, 2048)
    texts, size = prompts(), n_others + 1
    answers = [write(engine, texts[first : first + size], sampling) for first in range(0, N_PROMPTS, size)]
    engine.close()
    return [answer for group in answers for answer in group][:N_PROMPTS]


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The index of the first token that differs; None if none does."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--model", default=str(packaged_model()), help="a GGUF file; the packaged model if left out")
    model = parser.parse_args().model
    sys.stdout.write(f"{N_PROMPTS} prompts x {N_TOKENS} tokens: the same as alone\n")
    for kind, sampling in KINDS.items():
        alone = in_company(model, 0, sampling)
        for n_others in COMPANIES:
            differences = map(first_difference, alone, in_company(model, n_others, sampling))
            found = [index for index in differences if index is not None]
            same = 1 - len(found) / N_PROMPTS
            where = f", the others up to token {statistics.mean(found):.1f} on average" if found else ""
            sys.stdout.write(f"  {kind:8} in company of {n_others:2}: {same:4.0%}{where}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
