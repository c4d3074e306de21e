"""What happened, as immutable facts in the past tense.

A body is one of the classes below; its tag ("task.queued") is its name in the log for ever. Bodies evolve by fields
with defaults, and a golden file pins the bytes of each. Content (inputs, prompts, answers, recipes) is never in a body:
it stands there by `Ref`, the digest of a blob, so that erasing the blob leaves the chain of hashes whole. The file is
long because it is the whole list.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from gx.core.message import Counts, Label, Scores, Value
from gx.core.task import Lease
from gx.core.terms import Terms

FORMAT = 1
"""The version of the log's format: of these bodies, of the tables and of the hash chain."""

Ref = str
"""The digest of a blob: 32 hex digits."""


class Blob(Value, frozen=True, kw_only=True):
    """Content beside the log: `digest` is `ids.digest(content)`."""

    digest: Ref
    content: bytes
    label: Label = Label.shared


# ── the log, the node, the bench ─────────────────────────────────────────────────────────────────────────────────


class LogOpened(Value, frozen=True, kw_only=True, tag="log.opened"):
    """The first event of a file. `previous` is the last hash of the file that it continues."""

    format: int
    gx: str
    previous: str | None = None


class LogArchived(Value, frozen=True, kw_only=True, tag="log.archived"):
    """Events `first` to `last` stand in the archive `name`, whose last hash is `hash`; the file goes on after them.

    `runs` is a blob: the runs that stand there only, as the view `runs` had them.
    """

    name: str
    first: int
    last: int
    hash: str
    runs: Ref


class NodeStarted(Value, frozen=True, kw_only=True, tag="node.started"):
    """A process took the workspace. `epoch` grows with each owner, so that an older one's leases are void."""

    epoch: int
    pid: int
    host: str = ""


class NodeStopped(Value, frozen=True, kw_only=True, tag="node.stopped"):
    epoch: int


class BenchStarted(Value, frozen=True, kw_only=True, tag="bench.started"):
    worker: str
    epoch: int
    incarnation: int
    pid: int
    slots: int
    engine: str = ""


class BenchExited(Value, frozen=True, kw_only=True, tag="bench.exited"):
    worker: str
    epoch: int
    incarnation: int
    reason: str


class BenchMeasured(Counts, frozen=True, kw_only=True, tag="bench.measured"):
    """What a bench did while a run went on, since the run's last such event, and what was in use at its end.

    They are amounts, so those of a run add up, over resumptions and new benches as well; paces follow from the sums.
    Runs that go on at the same time share the bench, and each has all that it did: don't add up over runs.

    One is written with the first reading of a run, then at most one in 30 s, and one as the run or its bench ends.
    What a bench did in the last seconds before it was killed is in none.
    """

    run: str
    worker: str
    epoch: int
    incarnation: int
    slots: int = 0
    slots_busy: int = 0
    threads: int = 0


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class RunCreated(Value, frozen=True, kw_only=True, tag="run.created"):
    """`recipe` is a blob of the recipe's text, `params` one of its parameters, `asked` one of all that was asked for.

    Instants are wall-clock seconds. A run that `is_detached` goes on without a client. Beside others it gets tokens in
    proportion to its `priority`.
    """

    run: str
    name: str
    fingerprint: str
    recipe: Ref
    params: Ref
    file: str = ""
    inputs: str = ""
    is_streamed: bool = False
    fresh: bool = False
    started_at: float = 0.0
    deadline_at: float | None = None
    budget_tokens: int | None = None
    asked: Ref | None = None
    is_detached: bool = False
    priority: float = 1.0
    burst: Terms | None = None
    by: str = ""


class RunResumed(Value, frozen=True, kw_only=True, tag="run.resumed"):
    """A client came back to an unfinished run, or another joined it. A limit that is given replaces the run's own."""

    run: str
    deadline_at: float | None = None
    budget_tokens: int | None = None
    is_detached: bool = False
    by: str = ""


class RunInterrupted(Value, frozen=True, kw_only=True, tag="run.interrupted"):
    """Its client went away or asked to stop; what was finished stays, the rest waits for a resumption."""

    run: str
    reason: str
    by: str = ""


class RunCancelled(Value, frozen=True, kw_only=True, tag="run.cancelled"):
    """Somebody gave the run up: nothing resumes it. What was finished stays."""

    run: str
    reason: str
    by: str = ""


class RunPaused(Value, frozen=True, kw_only=True, tag="run.paused"):
    """Nothing new begins until the run is continued; what is running ends."""

    run: str
    by: str = ""


class RunContinued(Value, frozen=True, kw_only=True, tag="run.continued"):
    """A paused run goes on."""

    run: str
    by: str = ""


class RunChanged(Value, frozen=True, kw_only=True, tag="run.changed"):
    """Somebody changed a live run. `None` leaves a thing as it is; `concurrency` 0 lifts that limit."""

    run: str
    concurrency: int | None = None
    priority: float | None = None
    deadline_at: float | None = None
    budget_tokens: int | None = None
    by: str = ""


class RunStopped(Value, frozen=True, kw_only=True, tag="run.stopped"):
    """A limit was reached: `limit` is "budget", "deadline" or "rule". The rest waits for a resumption, if need be with
    another limit.
    """

    run: str
    limit: str
    reason: str


class StopAsked(Value, frozen=True, kw_only=True, tag="stop.asked"):
    """The run is to stop once what is running has ended: a rule says so, or a person who was asked."""

    run: str
    reason: str
    by: str = ""


class ClockJumped(Value, frozen=True, kw_only=True, tag="clock.jumped"):
    """The wall clock moved against the monotonic one (a laptop slept): the run's deadline and timers move with it."""

    run: str
    by_s: float


class RunFinished(Value, frozen=True, kw_only=True, tag="run.finished"):
    """Every task reached its end."""

    run: str
    succeeded: int
    failed: int
    skipped: int = 0
    cancelled: int = 0


class InputRow(Value, frozen=True, kw_only=True):
    """A row that was read. `item` is its content; `error` says why it can't be used, with its line."""

    index: int
    id: str
    item: Ref | None = None
    error: str | None = None
    is_batch: bool = False


class InputsRead(Value, frozen=True, kw_only=True, tag="inputs.read"):
    run: str
    rows: tuple[InputRow, ...]


class InputsEnded(Value, frozen=True, kw_only=True, tag="inputs.ended"):
    run: str
    rows: int


class PlacementDecided(Value, frozen=True, kw_only=True, tag="placement.decided"):
    """Where the excess of the run's work goes from now on: written when the verdict changes, and only then.

    `verdict` is "edge" or "burst", with so many `containers` of a `gpu`. `finish_s` is the time to the end that is
    expected of it, `edge_s` that without any container, `usd` what it costs from now on. `figures` are those that it
    was decided from, by their names in `gx.run.placement`; one that was unknown is left out.
    """

    run: str
    verdict: str
    reason: str
    gpu: str = ""
    containers: int = 0
    finish_s: float = 0.0
    edge_s: float = 0.0
    usd: float = 0.0
    figures: dict[str, float] = {}


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────


class StepUnfolded(Value, frozen=True, kw_only=True, tag="step.unfolded"):
    """All tasks of the step (of this level of its tree, for a reduce) are made."""

    run: str
    step: str
    tasks: int
    level: int = 0


class StepGrouped(Value, frozen=True, kw_only=True, tag="step.grouped"):
    """How one level of a reduce is cut: `spans` are [start, stop) over what the level below gave, in order."""

    run: str
    step: str
    level: int
    spans: tuple[tuple[int, int], ...]


class StepSkipped(Value, frozen=True, kw_only=True, tag="step.skipped"):
    run: str
    step: str
    reason: str


class BurstAllowed(Value, frozen=True, kw_only=True, tag="burst.allowed"):
    """From now on the run may rent on these terms, in place of those that it had. The cap is over its whole life."""

    run: str
    terms: Terms
    by: str = ""


class ContainerReserved(Value, frozen=True, kw_only=True, tag="container.reserved"):
    """One container more may be alive from `at` on: written before it is asked for, and kept until it must have ended.

    The fields are those of `gx.core.ledger.Container`: what it costs a second, and what bounds its life, in seconds.
    """

    run: str
    container: str
    gpu: str
    usd_per_s: float
    timeout_s: float
    cold_start_s: float
    lease_s: float
    window_s: float
    at: float


class ContainersRenewed(Value, frozen=True, kw_only=True, tag="containers.renewed"):
    """The driver vouches anew, as of `at`, for what these containers begin: written before they are told."""

    run: str
    containers: tuple[str, ...]
    at: float


class ContainerSeen(Value, frozen=True, kw_only=True, tag="container.seen"):
    """A container, `name` at its landlord, was alive at `at`, up since `began_at`: what it cost until then is known.

    Written when it is first seen, then at most one in 15 s. All are wall-clock seconds.
    """

    run: str
    container: str
    name: str
    began_at: float
    at: float


class ContainerEnded(Value, frozen=True, kw_only=True, tag="container.ended"):
    """A container has ended by `at`, as far as can be told from here: it costs nothing more."""

    run: str
    container: str
    at: float


class RentRefused(Value, frozen=True, kw_only=True, tag="rent.refused"):
    """Nothing can be rented, or not for now: no token, a quota, an account that doesn't answer. The run goes on here.

    Written once for each reason in a row.
    """

    run: str
    reason: str
    code: str = ""


class StepPaused(Value, frozen=True, kw_only=True, tag="step.paused"):
    """Nothing of the step begins until it is continued; what is running ends."""

    run: str
    step: str
    by: str = ""


class StepContinued(Value, frozen=True, kw_only=True, tag="step.continued"):
    """A paused step goes on."""

    run: str
    step: str
    by: str = ""


class StepRouted(Value, frozen=True, kw_only=True, tag="step.routed"):
    """From now on the step's tasks are prepared for that agent, or for their own agent on that model.

    What is running ends as it is. `None` for both is the recipe's own way again.
    """

    run: str
    step: str
    agent: str | None = None
    model: str | None = None
    by: str = ""


# ── rules and questions ──────────────────────────────────────────────────────────────────────────────────────────


class RuleFired(Value, frozen=True, kw_only=True, tag="rule.fired"):
    """The rule's query turned true, and what it does was committed with this. `action` says that in words.

    `read_seq` is the last event that the query saw, `rows` a blob of its answer, and `at` (wall-clock seconds) when it
    was decided: what follows from it is never asked of the log again.
    """

    run: str
    rule: str
    read_seq: int
    rows: Ref
    at: float
    action: str


class RuleCleared(Value, frozen=True, kw_only=True, tag="rule.cleared"):
    """The query of a rule that had fired turned false: the rule may fire again."""

    run: str
    rule: str
    read_seq: int


class RuleFailed(Value, frozen=True, kw_only=True, tag="rule.failed"):
    """The rule's query has no answer; the run goes on. Written once for each error, however often that comes.

    What stands in quotes may be content, and is left out of `message`; `detail` is a blob of the whole.
    """

    run: str
    rule: str
    code: str
    message: str
    detail: Ref


class BurstAsked(Value, frozen=True, kw_only=True, tag="burst.asked"):
    """Somebody holds that the backlog is worth renting for. It is no decision to."""

    run: str
    reason: str
    by: str = ""


class QuestionAsked(Value, frozen=True, kw_only=True, tag="question.asked"):
    """A person is asked. Nothing new begins in the run until one of `choices` is given."""

    run: str
    question: str
    text: str
    choices: tuple[str, ...]
    by: str = ""


class QuestionAnswered(Value, frozen=True, kw_only=True, tag="question.answered"):
    run: str
    question: str
    choice: str
    by: str = ""


# ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────


class TaskQueued(Value, frozen=True, kw_only=True, tag="task.queued"):
    """A task of the plan. `path` is its place in the step, `index` the row's own; `item` and `input` are blobs.

    `error` says why the row can't be used. `span` and `level` belong to a reduce: which part of the level below the
    task takes.
    """

    run: str
    task: str
    step: str
    path: str
    index: int
    id: str
    item: Ref | None = None
    input: Ref | None = None
    error: str | None = None
    is_batch: bool = False
    matrix: dict[str, Any] = {}
    level: int = 0
    span: tuple[int, int] | None = None
    label: Label = Label.shared


class PromptPart(Value, frozen=True, kw_only=True, array_like=True):
    """A message of a prompt: its role, and its content as a blob."""

    role: str
    content: Ref


class TaskPrepared(Value, frozen=True, kw_only=True, tag="task.prepared"):
    run: str
    task: str
    attempt: int
    key: str
    model: str
    prompt: tuple[PromptPart, ...]
    seed: int = 0
    label: Label = Label.shared


class TaskLeased(Value, frozen=True, kw_only=True, tag="task.leased"):
    run: str
    task: str
    attempt: int
    worker: str
    lease: Lease
    alone: bool = False


class CallMade(Value, frozen=True, kw_only=True, tag="call.made"):
    """A container's landlord took the attempt, as `call`: by that it is found again. A later one takes its place."""

    run: str
    task: str
    attempt: int
    call: str
    gpu: str


class Egress(Value, frozen=True, kw_only=True, tag="egress.declared"):
    """An attempt's turn leaves this machine for `to`: `bytes` of it, with that digest. Committed before it leaves.

    `fields` are what its prompt was made from, by their names, such as "item.text".
    """

    run: str
    task: str
    attempt: int
    to: str
    fields: tuple[str, ...]
    bytes: int
    digest: str


class TaskSucceeded(Value, frozen=True, kw_only=True, tag="task.succeeded"):
    """The result, once. `cached` names the task whose equal key was already answered; it cost nothing again.

    `finish` is "length" for a text that was cut at `max_tokens`, "context" for one that was cut where the context
    ended: the latter is never reused, since no part of the key says how large the context was. `likelihoods` is a
    blob: the probabilities of a choice's options, or of the answer's tokens where they were asked for. `scores` were
    those of a choice, in logs that were written before there were such blobs.
    """

    run: str
    task: str
    attempt: int
    key: str
    output: Ref
    worker: str | None = None
    ms: float | None = None
    tok_in: int = 0
    tok_out: int = 0
    tok_cached: int = 0
    cached: str | None = None
    finish: str = "stop"
    scores: Scores | None = None
    likelihoods: Ref | None = None


class AttemptFailed(Value, frozen=True, kw_only=True, tag="attempt.failed"):
    """An attempt ended in a failure. `detail` is a blob: a traceback or an excerpt."""

    run: str
    task: str
    attempt: int
    worker: str
    code: str
    message: str
    detail: Ref | None = None
    ms: float | None = None
    tok_in: int = 0
    tok_out: int = 0


class AttemptLost(Value, frozen=True, kw_only=True, tag="attempt.lost"):
    """The worker went away under the attempt: it costs no retry.

    `is_suspect` says that the task may be why: its bench died, rather than being ended with its node or on purpose.
    `alone` says that nothing else ran beside it.
    """

    run: str
    task: str
    attempt: int
    worker: str
    reason: str
    is_suspect: bool = True
    alone: bool = False


class AttemptSuperseded(Value, frozen=True, kw_only=True, tag="attempt.superseded"):
    """A stale attempt spoke after all; it changes nothing but what was spent."""

    run: str
    task: str
    attempt: int
    worker: str
    outcome: str
    ms: float | None = None
    tok_in: int = 0
    tok_out: int = 0


class TaskRetried(Value, frozen=True, kw_only=True, tag="task.retried"):
    """After the failure of `attempt`, the task goes back to prepared with the next one, not before `not_before`."""

    run: str
    task: str
    attempt: int
    not_before: float


class TaskFailed(Value, frozen=True, kw_only=True, tag="task.failed"):
    run: str
    task: str
    attempt: int
    code: str
    message: str


class TaskCancelled(Value, frozen=True, kw_only=True, tag="task.cancelled"):
    run: str
    task: str
    attempt: int
    reason: str
    by: str = ""


class TaskSkipped(Value, frozen=True, kw_only=True, tag="task.skipped"):
    run: str
    task: str
    attempt: int
    reason: str


class ContentErased(Value, frozen=True, kw_only=True, tag="content.erased"):
    """Blobs were removed at somebody's wish; their digests stay, so the chain still verifies.

    `also` are other runs that lost content by it, having had the same.
    """

    blobs: tuple[Ref, ...]
    subject: str
    run: str | None = None
    task: str | None = None
    also: tuple[str, ...] = ()


Body = (
    LogOpened
    | LogArchived
    | NodeStarted
    | NodeStopped
    | BenchStarted
    | BenchExited
    | BenchMeasured
    | ClockJumped
    | RunCreated
    | RunResumed
    | RunInterrupted
    | RunCancelled
    | RunPaused
    | RunContinued
    | RunChanged
    | RunStopped
    | StopAsked
    | RunFinished
    | PlacementDecided
    | BurstAllowed
    | ContainerReserved
    | ContainersRenewed
    | ContainerSeen
    | ContainerEnded
    | RentRefused
    | CallMade
    | InputsRead
    | InputsEnded
    | StepUnfolded
    | StepGrouped
    | StepSkipped
    | StepPaused
    | StepContinued
    | StepRouted
    | RuleFired
    | RuleCleared
    | RuleFailed
    | BurstAsked
    | QuestionAsked
    | QuestionAnswered
    | TaskQueued
    | TaskPrepared
    | TaskLeased
    | Egress
    | TaskSucceeded
    | AttemptFailed
    | AttemptLost
    | AttemptSuperseded
    | TaskRetried
    | TaskFailed
    | TaskCancelled
    | TaskSkipped
    | ContentErased
)

BODIES: tuple[type[Value], ...] = get_args(Body)

_DECODER: msgspec.json.Decoder[Body] = msgspec.json.Decoder(Body)
_ENCODER = msgspec.json.Encoder()


def encode_body(body: Body) -> bytes:
    """The JSON that stands in the log's `data` column."""
    return _ENCODER.encode(body)


def decode_body(data: bytes | str) -> Body:
    """The body that `encode_body` wrote. :raises msgspec.ValidationError: if it is none."""
    return _DECODER.decode(data)


def tag_of(body: Body | type[Value]) -> str:
    """The name of the body's kind in the log, such as "task.queued"."""
    return str(body.__struct_config__.tag)


class Event(Value, frozen=True, kw_only=True):
    """A body with what the log gave it: `seq` is dense, `ts` is wall-clock microseconds, `source` who wrote it."""

    seq: int
    ts: int
    source: str
    body: Body
