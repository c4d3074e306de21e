"""What the fold makes: runs, their steps and tasks, and the queues that the scheduler reads.

These are the only mutable values of the core, and `gx.core.projection` is the only writer. A finished task keeps its
place, its status and the digest of its result; never its prompt or its result. That is some 1 KiB a task.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import Any

import msgspec

from gx.core.event import (
    BurstAsked,
    CapReached,
    InputRow,
    PlacementDecided,
    QuestionAsked,
    Recalled,
    Ref,
    RentRefused,
    RunCreated,
    Shortened,
    StepRouted,
    StopAsked,
)
from gx.core.ledger import Ledger
from gx.core.message import Counts, Label
from gx.core.task import Lease, Status
from gx.core.terms import Terms


class RunStatus(str, Enum):
    """Where a run stands."""

    running = "running"  # a client wants its results; or its node died and nobody came back yet
    interrupted = "interrupted"  # its client went away or pressed Ctrl-C; running it again goes on
    stopped = "stopped"  # its budget or deadline was reached, or a rule stopped it; a resumption goes on
    finished = "finished"  # every task reached its end
    cancelled = "cancelled"  # somebody gave it up


class TaskState(msgspec.Struct, kw_only=True, gc=False):
    """A task, as of the last event. `order` is its place among the run's tasks; `error` is (code, message).

    `tokens_in`, `tokens_out` and `ms` sum over its attempts. `found` is what the memory gave, until it ends; `None` if
    that is not known. `shortened` is what was left out of its prompt, until it ends.
    `part_of` is the task whose text it condenses a part of.
    """

    id: str
    step: str
    path: str
    index: int
    row_id: str
    order: int
    item: Ref | None = None
    input: Ref | None = None
    is_batch: bool = False
    matrix: dict[str, Any] | None = None
    level: int = 0
    span: tuple[int, int] | None = None
    label: Label = Label.shared
    status: Status = Status.queued
    attempt: int = 1
    failures: int = 0
    losses: int = 0
    losses_alone: int = 0
    is_alone: bool = False
    key: str | None = None
    worker: str | None = None
    lease: Lease | None = None
    output: Ref | None = None
    likelihoods: Ref | None = None
    error: tuple[str, str] | None = None
    found: tuple[Recalled, ...] | None = None
    shortened: Shortened | None = None
    part_of: str | None = None
    cached: str | None = None
    finish: str = "stop"
    tokens_in: int = 0
    tokens_out: int = 0
    ms: float = 0.0


class LeftOut(msgspec.Struct, kw_only=True):
    """What was left out of a step's prompts, added up: of `prompts`, `parts` of so many went in, and `tokens_kept`.

    Of further texts, notes on `condensed` parts went in; of dialogues, `dropped` of their `messages` did not.
    `context_tokens` is that of the last one, `without` what a choice was without, each sentence once.
    """

    prompts: int = 0
    parts: int = 0
    of: int = 0
    condensed: int = 0
    dropped: int = 0
    messages: int = 0
    tokens: int = 0
    tokens_kept: int = 0
    context_tokens: int = 0
    without: dict[str, None] = {}


class StepState(msgspec.Struct, kw_only=True):
    """A step, as of the last event. `live` tasks have not ended; `ended` counts the others by status.

    `levels` are the cuts of a reduce so far, each a row of [start, stop) spans over the level below. `left_out` says
    what didn't go into prompts that would not fit; `None` where all did.
    """

    id: str
    tasks: list[TaskState] = []
    is_unfolded: bool = False
    skipped: str | None = None
    live: int = 0
    level: int = 0
    levels: list[tuple[tuple[int, int], ...]] = []
    ended: dict[Status, int] = {}
    left_out: LeftOut | None = None

    def successes(self, level: int | None = None) -> list[TaskState]:
        """The tasks that succeeded, in the order of their rows; of one level only, for a reduce."""
        chosen = [t for t in self.tasks if t.status is Status.succeeded and (level is None or t.level == level)]
        chosen.sort(key=lambda t: (t.index, t.order))
        return chosen


class RuleState(msgspec.Struct, kw_only=True):
    """A rule, as of the last event. While it `is_true` it can't fire: its query must turn false first.

    `fired_at` is in wall-clock seconds; `did` is what it did last, in words; `errors` are what it failed with so far,
    each with the blob of the whole.
    """

    is_true: bool = False
    fired: int = 0
    fired_at: float | None = None
    did: str = ""
    errors: dict[str, Ref] = {}


class RentState(msgspec.Struct, kw_only=True):
    """What a run rents, as of the last event. `names` are the containers' own, where they were seen.

    `verdict` is where its excess goes, `refused` why nothing can be rented, as long as nothing was since. `capped` says
    that the cap is reached, as long as there are no other terms.

    The ledger is that of terms like the present ones: paid, or rehearsed. `other_usd` is settled on those of the other
    sort: what was rehearsed is not spent, and eats up no cap; what was paid stays paid.
    """

    terms: Terms
    ledger: Ledger
    other_usd: float = 0.0
    verdict: PlacementDecided | None = None
    names: dict[str, str] = {}
    seen_at: dict[str, float] = {}
    refused: RentRefused | None = None
    capped: CapReached | None = None

    @property
    def paid_usd(self) -> float:
        """What is really spent so far, whatever the terms are now."""
        return self.other_usd if self.terms.is_rehearsal else self.ledger.settled_usd


class RunState(msgspec.Struct, kw_only=True):
    """A run, as of the event `seq`; `began_seq` is that of its first.

    `unprepared`, `ready` and `suspects` (which must run alone) are ids in the order of coming; in `ready`, one that was
    overtaken on its way comes first. `delayed` maps an id to
    the instant before which it waits. `leaders` maps a key to the task that computes it, `followers`
    a leader to the tasks that wait for its result. `unprepared` gives its oldest without walking past those that left.
    `counts` are what the benches did while the run went on. At most `concurrency` tasks run at once, where it is set.

    `rent` is None as long as there are no terms on which it may rent. `parked` are the tasks of paused steps that stood
    in one of these queues or would, with the instant before which they wait anyway. `paused_steps` maps a step to who
    paused it, `routes` to where its tasks go instead of the recipe's own way. `questions` are those that nobody
    answered yet.
    """

    id: str
    created: RunCreated
    began_seq: int = 0
    seq: int = 0
    status: RunStatus = RunStatus.running
    stopped_by: str = ""
    deadline_at: float | None = None
    budget_tokens: int | None = None
    is_paused: bool = False
    is_detached: bool = False
    concurrency: int | None = None
    priority: float = 1.0
    steps: dict[str, StepState] = {}
    tasks: dict[str, TaskState] = {}
    rows: list[InputRow] = []
    next_row: int = 0
    inputs_ended: bool = False
    live: int = 0
    unprepared: OrderedDict[str, None] = msgspec.field(default_factory=OrderedDict)
    ready: OrderedDict[str, None] = msgspec.field(default_factory=OrderedDict)
    delayed: dict[str, float] = {}
    suspects: dict[str, None] = {}
    parked: dict[str, float] = {}
    leased: dict[str, TaskState] = {}
    leaders: dict[str, str] = {}
    followers: dict[str, list[str]] = {}
    spent_tokens: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    reused: int = 0
    counts: Counts = Counts()
    rules: dict[str, RuleState] = {}
    paused_steps: dict[str, str] = {}
    routes: dict[str, StepRouted] = {}
    questions: dict[str, QuestionAsked] = {}
    stop_asked: StopAsked | None = None
    burst_asked: BurstAsked | None = None
    rent: RentState | None = None

    def step(self, step_id: str) -> StepState:
        """The state of that step; a fresh one if nothing happened to it yet."""
        if (state := self.steps.get(step_id)) is None:
            state = self.steps[step_id] = StepState(id=step_id)
        return state

    def rule(self, rule_id: str) -> RuleState:
        """The state of that rule; a fresh one if nothing happened to it yet."""
        if (state := self.rules.get(rule_id)) is None:
            state = self.rules[rule_id] = RuleState()
        return state

    def count(self, status: Status) -> int:
        """How many tasks ended in `status`."""
        return sum(step.ended.get(status, 0) for step in self.steps.values())


class BenchState(msgspec.Struct, kw_only=True, gc=False):
    """A bench that is up, as of its last reading: `lately` is what it did before that, some 30 s as a rule.

    `gx.core.figures` makes paces of it. `slots_busy` and `threads` were in use then.
    """

    worker: str
    epoch: int
    incarnation: int
    engine: str = ""
    slots: int
    slots_busy: int = 0
    threads: int = 0
    lately: Counts = Counts()


class View(msgspec.Struct, kw_only=True):
    """Everything that the node knows, as of the event `seq`. `epoch` is that of the last owner.

    `benches` are those that are up, by their workers; `memory_seq` is the last event that changed what is remembered.
    """

    seq: int = -1
    memory_seq: int = -1
    epoch: int = 0
    runs: dict[str, RunState] = {}
    benches: dict[str, BenchState] = {}
