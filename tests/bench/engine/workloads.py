"""The workloads: chats that begin at given times, made from a seed. A second seed keeps the prefix and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

_TEXT = (
    "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but "
    "not what all were we when your can said there use an each which she do how their if will up other about out many "
    "then them these so some her would make like him into time has look two more write go see number no way could "
    "people my than first water been call who oil its now find long down day did get come made may part"
)
WORDS = _TEXT.split()

TICKET: dict[str, Any] = {
    "type": "object",
    "required": ["category", "urgency", "summary"],
    "additionalProperties": False,
    "properties": {
        "category": {"enum": ["billing", "bug", "how-to", "account", "other"]},
        "urgency": {"enum": ["low", "medium", "high"]},
        "summary": {"type": "string", "maxLength": 160},
    },
}


class Chat(NamedTuple):
    """What one user says, turn by turn, each after the answer to the one before; it begins `at_s` into the run."""

    system: str
    turns: tuple[str, ...]
    max_tokens: int
    schema: dict[str, Any] | None = None
    at_s: float = 0.0


def _words(random_: random.Random, count: int) -> str:
    return " ".join(random_.choice(WORDS) for _ in range(count))


SHARED = _words(random.Random(0), 375)  # some 400 tokens with the chat template


def w1(seed: int) -> list[Chat]:
    """64 requests: 400 shared tokens, some 70 distinct ones, 64 out."""
    dice = random.Random(seed)
    return [Chat(SHARED, (_words(dice, dice.randint(55, 70)),), 64) for _ in range(64)]


def w2(seed: int) -> list[Chat]:
    """W1's prompts with a JSON schema of two enums and a string of at most 160 characters."""
    system = f"You triage support tickets. {SHARED}"
    dice = random.Random(seed)
    return [Chat(system, (f"Ticket: {_words(dice, dice.randint(50, 65))}",), 160, TICKET) for _ in range(64)]


def w3(seed: int) -> list[Chat]:
    """32 chats of 6 turns each, whose histories grow with the answers."""
    dice = random.Random(seed)
    system = _words(random.Random(0), 90)
    return [Chat(system, tuple(_words(dice, dice.randint(20, 50)) for _ in range(6)), 40) for _ in range(32)]


def w4(seed: int) -> list[Chat]:
    """200 requests, lengths heavy-tailed (10 to 1,500 in, 4 to 400 out), arriving over time."""
    dice = random.Random(seed)
    at_s, chats = 0.0, list[Chat]()
    for _ in range(200):
        tokens_in = min(1500, max(10, int(dice.paretovariate(0.9) * 30)))
        tokens_out = min(400, max(4, int(dice.paretovariate(1.0) * 14)))
        chats.append(Chat("You help.", (_words(dice, tokens_in),), tokens_out, at_s=at_s))
        at_s += dice.expovariate(5.0)
    return chats


def w5(seed: int) -> list[Chat]:
    """16 requests with nothing in common."""
    dice = random.Random(seed)
    return [Chat(_words(dice, 150), (_words(dice, 150),), 64) for _ in range(16)]


WORKLOADS: dict[str, Callable[[int], list[Chat]]] = {"W1": w1, "W2": w2, "W3": w3, "W4": w4, "W5": w5, "W6": w1}
