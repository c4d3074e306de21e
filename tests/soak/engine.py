"""The engine under all that may come, for as long as one likes: everybody is answered, and nothing is left behind.

Bursts of requests on three models that write and one that embeds, which take turns in memory: short and long ones,
schemas, options, texts to embed, timeouts, refusals, and half of them cancelled at random moments. After each burst
every future was resolved once, and in a way that its request allows; every slot is free, and no model is in use.
Memory is measured there, without the files that are mapped: once it has warmed up it may not grow. Everything random
follows from the seed, the moments themselves from the machine.

`python -m tests.soak.engine --minutes 60` prints a line now and then, and exits 1 at the first promise that was broken.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from pathlib import Path
from typing import Any, NamedTuple

from edge.engine.engine import Completion, Engine, Request, Weights
from gx.core.errors import GxError
from gx.core.message import Failure, Message, Sampling
from tests.soak.promises import Broken, claim
from tests.tiny_bert import write_tiny_bert
from tests.tiny_model import packaged_model, write_tiny_model

SLOTS, BURST = 24, 60
ANSWER_S = 120.0
"""A request of a burst that takes longer hangs."""
TELL_S = 15.0
GROWTH, GROWTH_BYTES = 0.05, 20 << 20
"""What memory may grow by once it has warmed up: the larger of the two. That takes a tenth of the time."""
CACHE_BYTES = 256 << 20
MODELS = {"tiny": 6, "other": 3, "smol": 1}
"""The models that write, and how often each has its turn. Before any measurement each has had some."""
LENGTHS_WORDS = (10, 600, 1500, 3000)
"""Prompts for lanes of every length, which are made when they are first needed and stay."""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["kind", "note"],
    "additionalProperties": False,
    "properties": {"kind": {"enum": ["billing", "bug"]}, "note": {"type": "string", "maxLength": 20}},
}
OPTIONS = ("yes, by all means", "no", "perhaps so")
BEGINNINGS = ("", "You are given a ticket of some length, and so on. " * 5, "Another beginning that many have. " * 8)
_INTERRUPTED = frozenset({"cancelled", "timeout"})


class Asked(NamedTuple):
    """A request, and the codes that it may fail with; `must_fail` is a refusal that is sure to come."""

    request: Request
    codes: frozenset[str] = frozenset()
    must_fail: bool = False


class Outcome(NamedTuple):
    """A future of a burst, what it may end as, and whether somebody wants to cancel it."""

    future: Future[Any]
    asked: Asked
    cancelled: threading.Event
    is_doomed: bool


def draw(dice: random.Random, number: int, model: str) -> Asked:
    """A request by chance."""
    length = dice.choice((1, 1, 3, 10, 40)) if model != "smol" else 1
    text = dice.choice(BEGINNINGS) + f"row {number} " * dice.randint(1, 10) * length
    fields: dict[str, Any] = {
        "sampling": Sampling(max_tokens=dice.choice((1, 4, 16, 40)), temperature=0.8, seed=number)
    }
    codes, must_fail = frozenset[str](), False
    match dice.randrange(12):
        case 0:
            fields["output_schema"], codes = SCHEMA, frozenset({"truncated"})
        case 1 | 2:
            fields = {"options": OPTIONS, "are_whole": dice.random() < 0.5}
        case 3:
            fields["timeout_s"], codes = dice.choice((0.0, 0.01, 0.1)), frozenset({"timeout"})
        case 4:
            text, codes, must_fail = "word " * dice.choices((6_000, 100_000), (9, 1))[0], frozenset({"context"}), True
        case 5:
            fields["output_schema"], codes, must_fail = {"type": "objekt"}, frozenset({"schema"}), True
        case 6:
            model, codes, must_fail = "nowhere", frozenset({"model"}), True
    return Asked(Request(model=model, messages=(Message(role="user", content=text),), **fields), codes, must_fail)


class Soak:
    """An engine, its bursts, and what has come of them so far."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._dice = random.Random(seed)
        self.engine = Engine(slots=SLOTS, context_tokens=4096, cache_bytes=CACHE_BYTES)
        for name in ("tiny", "other"):
            self.engine.register(name, str(write_tiny_model(folder / name, context=4096, seed=len(name))))
        self.engine.register("smol", str(packaged_model()), 1024)
        self.engine.register("bert", str(write_tiny_bert(folder / "bert")))
        self.ends: Counter[str] = Counter()
        self._number = 0

    def warm(self) -> None:
        """Have every model in memory, with all of its lanes."""
        for model in MODELS:
            lengths = LENGTHS_WORDS if model != "smol" else LENGTHS_WORDS[:2]
            chats = [(Message(role="user", content="word " * length),) for length in lengths]
            futures = [self.engine.submit(Request(model=model, messages=chat)) for chat in chats]
            for future in futures:
                claim(isinstance(result := future.result(ANSWER_S), Completion), f"no completion: {result}")
            self.burst(model)

    def burst(self, model: str | None = None) -> None:
        """Ask, cancel, and wait for everybody. :raises Broken: if a promise was broken."""
        dice, calls = self._dice, Counter[int]()
        model = model or dice.choices(list(MODELS), list(MODELS.values()))[0]
        outcomes: list[Outcome] = []
        canceller = threading.Thread(target=self._cancel, args=(outcomes, random.Random(dice.random())))
        canceller.start()
        size = BURST if model != "smol" else BURST // 6
        for place in range(size):
            self._number += 1
            cancelled, is_doomed = threading.Event(), dice.random() < 0.5
            if dice.random() < 0.03:
                texts = ["a b c " * dice.randint(1, 20)] * dice.randint(1, 200)
                asked = Asked(Request(model="bert", messages=()))
                future: Future[Any] = self.engine.embed("bert", texts, cancelled=cancelled)
            else:
                asked = draw(dice, self._number, model)
                future = self.engine.submit(asked.request, cancelled=cancelled)
            future.add_done_callback(lambda _, place=place: calls.update([place]))  # type: ignore[misc]
            outcomes.append(Outcome(future, asked, cancelled, is_doomed))
        for outcome in outcomes:
            self.ends[_end_of(outcome)] += 1
        canceller.join()
        claim(len(calls) == size and set(calls.values()) == {1}, "a future was resolved more than once, or never")
        self._check_idle()

    def _cancel(self, outcomes: list[Outcome], dice: random.Random) -> None:
        """Cancel those who are doomed, as they come or later."""
        until_s = time.monotonic() + dice.choice((0.05, 0.3, 1.0))
        while time.monotonic() < until_s:
            time.sleep(dice.random() * 0.01)
            waiting = [outcome for outcome in list(outcomes) if outcome.is_doomed and not outcome.cancelled.is_set()]
            if waiting:
                dice.choice(waiting).cancelled.set()

    def _check_idle(self) -> None:
        until_s = time.monotonic() + 10
        shelf = self.engine._shelf
        while any(loaded.users for loaded in shelf._loaded.values()) and time.monotonic() < until_s:
            time.sleep(0.002)
        claim(self.engine._rounds.is_idle, f"not idle: {self.engine}")
        for digest, loaded in list(shelf._loaded.items()):
            claim(not loaded.users and loaded.lanes.is_idle, f"{digest} is still in use: {loaded.lanes}")
            for lane in loaded.lanes._lanes:
                claim(lane._slots.n_free == len(lane._slots), f"a slot of {digest} was lost: {lane}")


def _end_of(outcome: Outcome) -> str:
    """A word on how a request ended. :raises Broken: if it didn't, or not as it may."""
    asked = outcome.asked
    try:
        result = outcome.future.result(ANSWER_S)
    except Late:
        raise Broken(f"{asked.request.model} has given no answer within {ANSWER_S:g} s") from None
    except GxError as error:  # of texts: their future has no other way
        claim(error.code == "cancelled" and outcome.cancelled.is_set(), f"texts failed: {error!r}")
        return "cancelled texts"
    if isinstance(result, Failure):
        allowed = asked.codes | ({"cancelled"} if outcome.cancelled.is_set() else set())
        claim(result.code in allowed, f"expected {sorted(allowed)}, got {result}")
        return result.code
    claim(not asked.must_fail, f"expected {sorted(asked.codes)}, got {result}")
    if asked.request.options:
        claim(isinstance(result, Weights) and len(result.log_likelihoods) == len(OPTIONS), f"no weights: {result}")
    elif asked.request.messages:
        claim(isinstance(result, Completion), f"no completion: {result}")
        claim(result.usage.tokens_out <= asked.request.sampling.max_tokens, f"too long: {result}")
    return type(result).__name__


def memory_bytes() -> int:
    """What the process holds itself, mapped files aside; where the system doesn't tell these apart, all of it."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["RssAnon"].split()[0]) << 10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def check_flat(samples: list[int]) -> str:
    """What memory did after the first tenth, in words. :raises Broken: if it grew."""
    warm = samples[len(samples) // 10 :]
    fifth = max(1, len(warm) // 5)
    first, last = statistics.median(warm[:fifth]), statistics.median(warm[-fifth:])
    told = f"{first / 2**20:.1f} MiB after warming up, {last / 2**20:.1f} MiB at the end, at most {max(warm) >> 20} MiB"
    claim(last - first <= max(GROWTH * first, GROWTH_BYTES), f"memory grew: {told}")
    return told


def soak(folder: Path, *, minutes: float, seed: int, tell: Callable[[str], None] = print) -> None:
    """Bursts for so long. :raises Broken: at the first promise that was not kept."""
    warnings.filterwarnings("ignore", "llama_token_get_attr")
    soak = Soak(folder, seed)
    samples: list[int] = []
    began_s = told_s = time.monotonic()
    try:
        soak.warm()
        while time.monotonic() - began_s < minutes * 60 or len(samples) < 10:
            soak.burst()
            samples.append(memory_bytes())
            if time.monotonic() - told_s > TELL_S:
                told_s = time.monotonic()
                tell(
                    f"{told_s - began_s:.0f} s: {len(samples)} bursts, {samples[-1] / 2**20:.1f} MiB, {dict(soak.ends)}"
                )
    finally:
        soak.engine.close()
    tell(f"{sum(soak.ends.values())} requests: {dict(soak.ends)}")
    tell(check_flat(samples))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.engine", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    print(f"seed {asked.seed}: {asked.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory(prefix="gx-soak-") as folder:
        try:
            soak(Path(folder), minutes=asked.minutes, seed=asked.seed, tell=lambda line: print(line, flush=True))
        except Broken as broken:
            sys.exit(f"BROKEN: {broken}\nagain with --seed {asked.seed}")
    print("all promises were kept")


if __name__ == "__main__":
    main()
