"""What is played: tasks with their tokens, when they come, and the machines that they are played on. Values only."""

from __future__ import annotations

from typing import Literal

from gx.core.message import Value
from gx.core.task import Offer
from gx.run.placement import Verdict
from gx.run.replay.line import Pace

Burst = Literal["off", "auto", "always"]


class Job(Value, frozen=True, kw_only=True):
    """A task: it comes `at_s` seconds after its group may begin, computes `tokens_in` of its prompt, and writes.

    `tokens_cached` of its prompt cost nothing. A private one stays on this machine.
    """

    task: str
    group: str = ""
    at_s: float = 0.0
    tokens_in: float
    tokens_cached: float = 0.0
    tokens_out: float
    is_private: bool = False

    @property
    def tokens(self) -> float:
        """Prompt and answer together, as rates count them."""
        return self.tokens_in + self.tokens_cached + self.tokens_out


class Trace(Value, frozen=True, kw_only=True):
    """The tasks of a run. A group in `after` begins when all tasks of those groups have ended, the others at 0."""

    jobs: tuple[Job, ...]
    after: dict[str, tuple[str, ...]] = {}

    def tokens_per_s(self, pace: Pace, slots: float) -> float:
        """What a machine does of these tasks with all its slots taken, prompts and answers together."""
        n = max(1, len(self.jobs))
        sums = (sum(getattr(job, name) for job in self.jobs) for name in ("tokens_in", "tokens_cached", "tokens_out"))
        return pace.tokens_per_s(slots, *(amount / n for amount in sums))


class Edge(Value, frozen=True, kw_only=True):
    """This machine: its engine's pace, its slots, and the seconds before its first call (a bench, a model).

    `believed_tokens_per_s` and `believed_task_tokens` are what a decision knows until something was measured; `None`
    takes what is true.
    """

    pace: Pace
    slots: int
    startup_s: float = 0.0
    believed_tokens_per_s: float | None = None
    believed_task_tokens: float | None = None


class Rental(Value, frozen=True, kw_only=True):
    """What may be rented: the pace and slots of one container, as they are, and the offer, as it is believed to be.

    `start_s` is how long a container really takes to start; `None` takes the offer's.
    """

    offer: Offer
    pace: Pace
    slots: int
    start_s: float | None = None

    @property
    def starts_s(self) -> float:
        """How long a container really takes to start."""
        return self.offer.cold_start_s if self.start_s is None else self.start_s


class Policy(Value, frozen=True, kw_only=True):
    """How a run is to be scheduled: slots of this machine, and what is rented, up to `usd` and by a deadline.

    "auto" takes tasks home that no container has begun, where that ends them sooner; "always" does if it `takes_home`.
    """

    slots: int
    burst: Burst = "off"
    containers: int = 0
    usd: float | None = None
    deadline_s: float | None = None
    takes_home: bool = False


class Played(Value, frozen=True, kw_only=True):
    """How it went: the time to the last task's end, the cost to the last container's, and every change of verdict."""

    makespan_s: float
    usd: float = 0.0
    containers: int = 0
    container_s: float = 0.0
    edge_tasks: int = 0
    cloud_tasks: int = 0
    taken_back: int = 0
    decisions: tuple[tuple[float, Verdict], ...] = ()
