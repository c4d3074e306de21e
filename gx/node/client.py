"""What a client asks of a node and what it gets: the interface that stays when the node moves to its own process."""

from __future__ import annotations

import msgspec

from gx.core.errors import GxError, UsageError
from gx.core.message import Value
from gx.core.terms import Terms
from gx.core.view import RunStatus
from gx.otel.collector import Collector
from gx.output import ExitCode, exit_code_of


class Submission(Value, frozen=True, kw_only=True):
    """A run as a client asks for it. `params` are the texts of `--set`; `None` means that it was not given.

    `inputs` is a path, a glob or "-"; the recipe's own when `None`. `folder` is what relative paths start from.
    `token` is the client's own: asked again with the same, a node goes on with the same run. A run that `is_detached`
    goes on without a client; `priority` is its share of the tokens beside others. `by` is who asks, in words.
    `fresh_from` is a step: it and what follows from it are computed anew, whatever the log knows. `burst` are terms on
    which it may rent, in place of the recipe's own. `notify` are commands and addresses that are told when it ends.
    `otel` is the collector that its traces and metrics are sent to.
    """

    recipe_text: str
    recipe_file: str
    recipe_folder: str
    folder: str
    params: dict[str, str] = {}
    inputs: str | None = None
    input_format: str | None = None
    limit: int | None = None
    sample: int | None = None
    name: str | None = None
    fresh: bool = False
    deadline_s: float | None = None
    budget_tokens: int | None = None
    token: str = ""
    is_detached: bool = False
    priority: float = 1.0
    by: str = ""
    fresh_from: str | None = None
    burst: Terms | None = None
    notify: tuple[str, ...] = ()
    otel: Collector | None = None


class OpenQuestion(Value, frozen=True, kw_only=True, omit_defaults=False):
    """What a person is asked, and what may be answered. `by` is who asks, in words."""

    question: str
    text: str
    choices: tuple[str, ...]
    by: str = ""


class Progress(Value, frozen=True, kw_only=True):
    """A run at a glance. `total` is what is known so far; `is_total_final` says that no more will come.

    `notes` are what its rules did, `questions` what a person is asked, `paused_steps` those that were paused. It
    `waits` if nothing of it runs, or can, before a person has answered or let a step go on.
    """

    done: int
    failed: int
    reused: int
    running: int
    total: int
    is_total_final: bool
    tokens_in: int
    tokens_out: int
    elapsed_s: float
    notes: tuple[str, ...] = ()
    questions: tuple[OpenQuestion, ...] = ()
    paused_steps: tuple[str, ...] = ()
    waits: bool = False


WAITS = "it waits for a person"
"""Why a run is left by a client that has nobody to ask."""


class RunEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended for this client. `failed` leaves out those of steps with `continue_on_error` (`excused`).

    A run that is finished in the log and whose results this client didn't take, was interrupted for it; `is_unread`
    says that this was because its own reader went away.
    """

    run: str
    is_streamed: bool
    status: RunStatus
    limit: str
    reason: str
    succeeded: int
    failed: int
    excused: int
    skipped: int
    cancelled: int
    left: int
    reused: int
    tokens_in: int
    tokens_out: int
    seconds: float
    skipped_steps: dict[str, str]
    first_errors: list[tuple[str, str, str]]
    warnings: list[str]
    error: GxError | None = None
    questions: tuple[OpenQuestion, ...] = ()
    paused_steps: tuple[str, ...] = ()
    is_unread: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """What the client's process ends with: an error comes first, then a limit, then what was left or failed."""
        if self.error is not None:
            return exit_code_of(self.error)
        if self.is_unread:
            return ExitCode.closed_pipe
        if self.status is RunStatus.cancelled:
            return ExitCode.error
        if self.status is RunStatus.stopped:
            return _LIMITS.get(self.limit, ExitCode.error)
        if self.status is not RunStatus.finished:
            return ExitCode.waiting if self.is_waiting else ExitCode.interrupted
        return ExitCode.some_failed if self.failed else ExitCode.ok

    @property
    def is_waiting(self) -> bool:
        """Whether it was left because only a person can let it go on, or stands so since."""
        return bool(self.questions or self.paused_steps) and self.reason in ("", WAITS)


_LIMITS = {"deadline": ExitCode.deadline, "budget": ExitCode.budget, "cap": ExitCode.budget}
"""What a limit ends with; that a rule stopped the run is an error, as that somebody cancelled it."""


class Started(Value, frozen=True, kw_only=True):
    """The answer to a submission: the run's id, its models' sources, and whether it goes on from an earlier start."""

    run: str
    name: str
    model: str
    is_resumed: bool
    done_before: int
    total: int


def as_params(pairs: list[str]) -> dict[str, str]:
    """`name=value` texts as a mapping. :raises GxError: naming a text without "="."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--set: expected name=value, got {pair!r}")
        found[name.strip()] = value
    return found
