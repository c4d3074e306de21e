"""What happens to a workspace in a trial, drawn by chance: kills, and what somebody does there between two of them.

It knows no process and no file. Everything random follows from the seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("renamed", "limit", "sample", "part", "report")
"""Runs beside the main one that share its keys: the same recipe by another name, over the first rows, over rows drawn
at random, over half of the rows in another order; and one that prints the report on all answers."""
ERASE_S = 1.0
"""How long `gx erase` takes, roughly."""


class Kill(NamedTuple):
    """Whom to kill ("gx", "node" or "bench"), and when: after `records` were printed, or (`None`) while it starts.

    `share` is how much of a start-up, or of the moment after the record, passes before.
    """

    whom: str
    records: int | None
    share: float


class Other(NamedTuple):
    """A run of one of KINDS over so many rows. If it is killed, it is given again once the main run has ended."""

    kind: str
    rows: int
    kill: Kill | None


class Erase(NamedTuple):
    """`gx erase` of the task that comes after this share of all tasks in the log; killed after `dies_after_s`."""

    share: float
    dies_after_s: float | None


class Verify(NamedTuple):
    """`gx log --verify`."""


class Away(NamedTuple):
    """Nobody comes back for a while: what is live is interrupted, and the node leaves."""


Step = Kill | Other | Erase | Verify | Away


class Trial(NamedTuple):
    """A workspace's whole story: `steps` in order, the main run being started wherever it takes a kill or an end.

    `poisoned` is the row that crashes the bench each time, if there is one, and those that repeat its text do so too.
    With a report, a second step reduces all answers of the first. `seed` says which rows repeat others. So many
    `clients` give the command at once and share its run; one that is killed while others live is replaced.
    """

    steps: tuple[Step, ...]
    poisoned: int | None
    has_report: bool
    seed: int
    clients: int = 1

    @property
    def kills(self) -> int:
        """How many of its steps kill something."""
        return sum(
            isinstance(step, Kill)
            or (isinstance(step, Other) and step.kill is not None)
            or (isinstance(step, Erase) and step.dies_after_s is not None)
            for step in self.steps
        )


def trials(kills: int, seed: int, tasks: int, node_share: float = 0.5) -> list[Trial]:
    """Trials of 1 to 3 kills of the main run each, with others between them until there are `kills` in all.

    `node_share` of the kills are of nodes, a third of the rest of benches; each fourth trial has a poisoned row, each
    second one a report, and two of three have several clients.
    """
    chance = random.Random(seed)
    errands = _errands(chance, tasks, node_share)
    made: list[Trial] = []
    left = kills
    while left > 0:
        steps: list[Step] = []
        for _ in range(chance.choice((1, 1, 2, 3))):
            steps.append(kill := _kill(chance, tasks, node_share))
            while kill.whom == "gx" and chance.random() < 0.5:
                steps.append(next(errands))
        poisoned = chance.randrange(tasks) if len(made) % 4 == 3 else None
        trial = Trial(tuple(steps), poisoned, len(made) % 2 == 1, chance.randrange(10**6), 1 + len(made) % 3)
        made.append(trial)
        left -= trial.kills
    return made


def _kill(chance: random.Random, rows: int, node_share: float) -> Kill:
    """One kill of a run over so many rows; some come after the last one, while a report is made."""
    other = "bench" if chance.random() < 0.35 else "gx"
    return Kill(
        whom="node" if chance.random() < node_share else other,
        records=None if chance.random() < 0.3 else min(chance.randrange(rows + rows // 6), rows),
        share=chance.random(),
    )


def _errands(chance: random.Random, tasks: int, node_share: float) -> Iterator[Step]:
    """What is done between two lives of the main run, without end; half of the runs and a third of erasures die."""
    kinds = _dealt(chance, "erase", "erase", "verify", "away", *["other"] * 4)
    others = _dealt(chance, *KINDS)
    for kind in kinds:
        if kind == "erase":
            yield Erase(chance.random(), ERASE_S * chance.random() if chance.random() < 0.3 else None)
        elif kind == "verify":
            yield Verify()
        elif kind == "away":
            yield Away()
        else:
            other = next(others)
            rows = {"part": tasks // 2, "renamed": tasks, "report": tasks}.get(
                other, chance.randrange(tasks // 4, tasks)
            )
            kill = _kill(chance, rows, node_share)
            if other == "report":  # it prints nothing before its end
                kill = kill._replace(records=None, share=2 * kill.share)
            yield Other(other, rows, kill if chance.random() < 0.5 else None)


def _dealt(chance: random.Random, *cards: str) -> Iterator[str]:
    """The cards, shuffled again and again: few draws meet each, however the seed falls."""
    while True:
        yield from chance.sample(cards, len(cards))


def texts(trial: Trial, tasks: int) -> dict[str, str]:
    """The text of each row by its id. A third of the rows repeat another's, some of a neighbour, some from far away."""
    chance = random.Random(trial.seed)
    of = [f"Say {n}." for n in range(tasks)]
    for row in chance.sample(range(tasks), tasks // 3):
        near = min(max(row + chance.choice((-2, -1, 1, 2)), 0), tasks - 1)
        of[row] = of[near if chance.random() < 0.4 else chance.randrange(tasks)]
    return {f"row-{n}": text for n, text in enumerate(of)}
