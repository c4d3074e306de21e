"""What happened to a task and its attempts."""

from __future__ import annotations

from typing import Any

from gx.core.bodies.blob import Ref
from gx.core.memory import Kind
from gx.core.message import Label, Scores, Value
from gx.core.task import Lease


class TaskQueued(Value, frozen=True, kw_only=True, tag="task.queued"):
    """A task of the plan. `path` is its place in the step, `index` the row's own; `item` and `input` are blobs.

    `error` says why the row can't be used. `span` and `level` belong to a reduce: which part of the level below the
    task takes. `part_of` is the task whose text this one condenses a part of.
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
    part_of: str | None = None


class PromptPart(Value, frozen=True, kw_only=True, array_like=True):
    """A message of a prompt: its role, and its content as a blob."""

    role: str
    content: Ref


class Recalled(Value, frozen=True, kw_only=True):
    """A memory that was found for a task. The rest is as in `gx.core.memory.Memory`.

    `body` and `heading` are digests, and no references: what was forgotten since is gone, whoever found it before.
    `relevance` and `fused_rank` are those of `gx.core.memory.Hit`, where a reranker put what was found in its order.
    """

    uid: str
    body: str
    score: float
    kind: Kind
    at: float
    label: Label = Label.private
    by: str = ""
    path: str = ""
    heading: str | None = None
    page: int | None = None
    ordinal: int | None = None
    relevance: float | None = None
    fused_rank: int | None = None


class Kept(Value, frozen=True, kw_only=True):
    """What of a text went into a prompt: [start, stop) `spans` of its characters.

    `field` is where the text stands, `of` how many parts it was cut into; `left_out` of them are left out before each
    span, and after the last. Where it was condensed instead, `notes` on its parts stand in its place.
    """

    field: tuple[str | int, ...]
    spans: tuple[tuple[int, int], ...]
    left_out: tuple[int, ...]
    of: int
    notes: tuple[Ref, ...] = ()


class Shortened(Value, frozen=True, kw_only=True):
    """How a prompt was made to fit the context of `model`: it had `tokens`, and has `tokens_kept`.

    Either parts of `texts` were left out or condensed, or the `dropped` oldest of the `messages` of a dialogue were
    left out; what `texts` has then are the notes on these. `without` says in sentences what the choice was without.
    """

    model: str
    context_tokens: int
    tokens: int
    tokens_kept: int
    texts: tuple[Kept, ...] = ()
    dropped: int = 0
    messages: int = 0
    without: tuple[str, ...] = ()


class TaskPrepared(Value, frozen=True, kw_only=True, tag="task.prepared"):
    """`found` is what was found in the memory, the best first; `None` where nothing was searched for.

    `without` says in sentences what the search was without. `shortened` says what was left out of a prompt that would
    not fit; `None` where nothing was. `reranker` is the SHA-256 of the model that put what was found in its order, ""
    if none did.
    """

    run: str
    task: str
    attempt: int
    key: str
    model: str
    prompt: tuple[PromptPart, ...]
    seed: int = 0
    label: Label = Label.shared
    found: tuple[Recalled, ...] | None = None
    without: tuple[str, ...] = ()
    shortened: Shortened | None = None
    reranker: str = ""


class TaskLeased(Value, frozen=True, kw_only=True, tag="task.leased"):
    run: str
    task: str
    attempt: int
    worker: str
    lease: Lease
    alone: bool = False


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
