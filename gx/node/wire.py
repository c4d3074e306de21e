"""What travels between a node and those who run something on it: submissions, records, the frames of a watched run.

Every value has a type, from which both ends encode and decode, and from which the API's description is made.
"""

from __future__ import annotations

import msgspec

from gx.core.message import Value
from gx.core.view import TaskState
from gx.node.client import Progress, RunEnd, Submission
from gx.node.problem import Problem, error_of, problem_of
from gx.run.record import Record
from gx.settings import Settings


class Asked(Value, frozen=True, kw_only=True):
    """A submission and the settings that hold where it was made."""

    submission: Submission
    settings: Settings


Json = msgspec.Raw | msgspec.UnsetType
"""JSON as it stands, or nothing: what isn't there is left out, since `null` may be an answer."""


class Result(Value, frozen=True, kw_only=True):
    """A record: the task as it ended, and what it has, as JSON."""

    task: TaskState
    output: Json = msgspec.UNSET
    input: Json = msgspec.UNSET
    likelihoods: Json = msgspec.UNSET


class End(Value, frozen=True, kw_only=True):
    """How the run ended; `error` is what went wrong, if something did."""

    run: RunEnd
    error: Problem | None = None


class Frame(Value, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a watched run: results as they come, how it stands, a warning, or, at last, its end."""

    results: tuple[Result, ...] = ()
    progress: Progress | None = None
    warning: str | None = None
    end: End | None = None


def results_of(records: list[Record]) -> Frame:
    """Records as they travel."""
    return Frame(
        results=tuple(
            Result(task=r.task, output=_raw(r.output), input=_raw(r.input), likelihoods=_raw(r.likelihoods))
            for r in records
        )
    )


def ending(run: RunEnd) -> End:
    """A run's end as it travels."""
    error = None if run.error is None else problem_of(run.error)
    return End(run=msgspec.structs.replace(run, error=None), error=error)


def ended(end: End) -> RunEnd:
    """The run's end that it was."""
    return end.run if end.error is None else msgspec.structs.replace(end.run, error=error_of(end.error))


def record_of(result: Result) -> Record:
    """The record that a result was."""
    return Record(
        task=result.task,
        output=_bytes(result.output),
        input=_bytes(result.input),
        likelihoods=_bytes(result.likelihoods),
    )


def _raw(content: bytes | None) -> Json:
    return msgspec.UNSET if content is None else msgspec.Raw(content)


def _bytes(raw: Json) -> bytes | None:
    return None if raw is msgspec.UNSET else bytes(raw)
