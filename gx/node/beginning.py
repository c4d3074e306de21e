"""What a submission writes: of a new run, of one that it resumes, of a live one that it joins."""

from __future__ import annotations

import msgspec

from gx.core import event as e
from gx.core import ids
from gx.core.event import Blob
from gx.core.view import RunState, RunStatus
from gx.node import problem, wire
from gx.node.bounds import check_switch
from gx.node.client import Submission
from gx.node.notices import without_secrets
from gx.node.wanted import Wanted, terms_of
from gx.otel import collector
from gx.run.contents import Contents


def created(
    run: str, asked: wire.Asked, read: Wanted, contents: Contents, now: float
) -> tuple[e.RunCreated, list[Blob]]:
    """The first event of a run, with the blobs that it names. What the submission leaves out the recipe says."""
    wanted, recipe = asked.submission, read.plan.recipe
    deadline_s = wanted.deadline_s if wanted.deadline_s is not None else recipe.deadline_s
    text = contents.put(wanted.recipe_text.encode())
    params = contents.put(ids.canonical(read.plan.params))
    whole = contents.put(problem.encode(_without_secrets(asked)))
    body = e.RunCreated(
        run=run,
        name=wanted.name or recipe.name,
        fingerprint=read.fingerprint or "",
        recipe=text.digest,
        params=params.digest,
        file=wanted.recipe_file,
        inputs=read.source.describe() if read.source is not None else "",
        is_streamed=read.source is not None and read.fingerprint is None,
        fresh=wanted.fresh,
        started_at=now,
        deadline_at=now + deadline_s if deadline_s is not None else None,
        budget_tokens=wanted.budget_tokens if wanted.budget_tokens is not None else recipe.budget.tokens,
        asked=whole.digest,
        is_detached=wanted.is_detached,
        priority=wanted.priority,
        burst=terms_of(wanted, recipe),
        by=wanted.by,
    )
    return body, [text, params, whole]


def rejoined(run: RunState, wanted: Submission) -> Submission:
    """What one who waits for a run, or has it taken up again, asks of it: the limits and terms that it has by now.

    Those it began with may have been changed since. A deadline begins anew where the run had come to an end, since it
    would end at once; where just its node died, it is over when it was to be over.
    """
    deadline_s = None if run.status is RunStatus.running else wanted.deadline_s
    return msgspec.structs.replace(wanted, burst=None, budget_tokens=None, deadline_s=deadline_s)


def resumed(run: RunState, wanted: Submission, now: float, *, deadline_s: float | None = None) -> list[e.Body]:
    """A run that wasn't live goes on; a limit that is given replaces its own.

    Where none is given and its deadline is over, the recipe's `deadline_s` begins anew, unless just its node died.
    """
    deadline_at = _deadline_at(wanted, now)
    is_over = run.deadline_at is not None and run.deadline_at <= now and run.status is not RunStatus.running
    if deadline_at is None and is_over and deadline_s is not None:
        deadline_at = now + deadline_s
    body = e.RunResumed(
        run=run.id,
        deadline_at=deadline_at,
        budget_tokens=wanted.budget_tokens,
        is_detached=wanted.is_detached,
        by=wanted.by,
    )
    return [body, *_allowed(run, wanted)]


def joined(run: RunState, wanted: Submission, now: float) -> list[e.Body]:
    """What a client that joins a live run changes of it: the limits that it gives, and that it needs no client."""
    made = _allowed(run, wanted)
    is_detached = wanted.is_detached and not run.is_detached
    if wanted.deadline_s is not None or wanted.budget_tokens is not None or is_detached:
        changed = e.RunChanged(
            run=run.id,
            deadline_at=_deadline_at(wanted, now),
            budget_tokens=wanted.budget_tokens,
            is_detached=is_detached,
            by=wanted.by,
        )
        made.append(changed)
    return made


def _without_secrets(asked: wire.Asked) -> wire.Asked:
    """What was asked for, as it may be written down."""
    kept, otel = without_secrets(asked.submission.notify), collector.without_secrets(asked.submission.otel)
    return msgspec.structs.replace(asked, submission=msgspec.structs.replace(asked.submission, notify=kept, otel=otel))


def _deadline_at(wanted: Submission, now: float) -> float | None:
    return None if wanted.deadline_s is None else now + wanted.deadline_s


def _allowed(run: RunState, wanted: Submission) -> list[e.Body]:
    """The terms that are asked for, of a run that has others. :raises UsageError: as `check_switch`."""
    if wanted.burst is None or (run.rent is not None and run.rent.terms == wanted.burst):
        return []
    check_switch(run, wanted.burst)
    return [e.BurstAllowed(run=run.id, terms=wanted.burst, by=wanted.by)]
