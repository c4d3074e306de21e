"""More tickets than there are: `python recipes/triage/more.py 300 > tickets.jsonl`.

Each is one of the hundred with another sender's opening and closing, and so another prompt. What it is about stays as
it is, and so do its category and urgency in labels.jsonl: T-017-2 is labelled as T-017. The same number gives the same
tickets.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

OPENINGS = (
    "Hello,", "Hi there,", "Good morning,", "Dear support,", "Hey,", "Hi team,", "Good evening,",
    "To whom it may concern,", "Hello again,", "Hi, me once more.",
)  # fmt: skip
CLOSINGS = (
    "Thanks, Ada", "Best, Joost", "Regards, M. Okafor", "Cheers, Lin", "Thank you, Priya", "Sent from my phone",
    "Greetings from Ghent, Wim", "Yours, Elsa", "Thanks in advance", "Kind regards, Tomás", "Bye, Noor",
)  # fmt: skip


def tickets(number: int) -> list[dict[str, str]]:
    """So many tickets: the hundred, then rounds of them in other words."""
    lines = (Path(__file__).parent / "tickets.jsonl").read_text(encoding="utf-8").splitlines()
    given = [json.loads(line) for line in lines]
    return [_varied(given[n % len(given)], n // len(given), n) for n in range(number)]


def _varied(ticket: dict[str, str], round_: int, n: int) -> dict[str, str]:
    if not round_:
        return ticket
    opening, closing = OPENINGS[(n + 3 * round_) % len(OPENINGS)], CLOSINGS[(n + round_) % len(CLOSINGS)]
    return ticket | {"id": f"{ticket['id']}-{round_ + 1}", "text": f"{opening} {ticket['text']} {closing}"}


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.exit(f"expected a number of tickets, as in: python {sys.argv[0]} 300 > tickets.jsonl")
    for one in tickets(int(sys.argv[1])):
        sys.stdout.write(json.dumps(one, ensure_ascii=False) + "\n")
