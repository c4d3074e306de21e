"""What the log knows of one run or one task, as one value.

It reads events and blobs, and decides nothing. Content that was erased is `None`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from gx.core import event as e
from gx.core.errors import NotFound, UsageError
from gx.core.event import Event, Ref
from gx.core.figures import figures, plus
from gx.core.message import Counts
from gx.flow.memories import source_of
from gx.run import likelihoods
from gx.run.history import telling
from gx.run.log import EventLog
from gx.run.long.telling import words_of

FIRST_FAILURES = 5
_STEERING = "type SIMILAR TO '(rule|question|burst|stop)[.].*|step[.](paused|continued|routed)'"


def story_of(log: EventLog, subject: str) -> dict[str, Any]:
    """Everything of the run or task whose id starts with `subject`.

    :raises NotFound: if there is none. :raises UsageError: if there are several.
    """
    name, is_run = resolve(log, subject)
    return run_story(log, name) if is_run else task_story(log, name)


def resolve(log: EventLog, subject: str) -> tuple[str, bool]:
    """The whole id that starts with `subject`, and whether it is a run's.

    :raises NotFound: if there is none. :raises UsageError: if there are several.
    """
    found = log.file.ask(
        """SELECT DISTINCT coalesce(task, run) AS name, task IS NULL AS is_run FROM events
        WHERE (type = 'run.created' AND starts_with(run, $1)) OR (type = 'task.queued' AND starts_with(task, $1))
        ORDER BY length(name), name LIMIT 6""",
        [subject],
    )
    exact = [row for row in found if row[0] == subject]
    if not found:
        raise NotFound(f"there is no run or task {subject}", hint="`gx runs` lists the runs")
    if len(found) > 1 and not exact:
        names = ", ".join(name for name, _ in found[:5]) + " …" * (len(found) > 5)
        raise UsageError(f"{subject} is the start of several ids: {names}", hint="give more of it")
    name, is_run = (exact or found)[0]
    return str(name), bool(is_run)


def task_story(log: EventLog, task: str) -> dict[str, Any]:
    """Everything of a task: where it belongs, its prompt, every attempt, its answer or error."""
    names = ["run", "step", "index", "id", "task", "path", "status", "label", "key", "model", "queued", "ended",
             "tok_in", "tok_out", "ms", "cached", "error_code", "error_message"]  # fmt: skip
    row = dict(zip(names, log.file.ask(f"SELECT {', '.join(names)} FROM tasks WHERE task = ?", [task])[0], strict=True))
    code, message = row.pop("error_code"), row.pop("error_message")
    sql = "SELECT data FROM events WHERE task = ? AND type = any(?::VARCHAR[]) ORDER BY seq"
    kinds = ["task.queued", "task.prepared", "task.succeeded", "attempt.failed"]
    bodies = [e.decode_body(data) for (data,) in log.file.ask(sql, [task, kinds])]
    queued = next(body for body in bodies if isinstance(body, e.TaskQueued))
    prepared = next((body for body in reversed(bodies) if isinstance(body, e.TaskPrepared)), None)
    prompt, found = ((), ()) if prepared is None else (prepared.prompt, prepared.found or ())
    done = next((body for body in reversed(bodies) if isinstance(body, e.TaskSucceeded)), None)
    output, told = (done.output, done.likelihoods) if done is not None else (None, None)
    details = {body.attempt: body.detail for body in bodies if isinstance(body, e.AttemptFailed) and body.detail}
    refs = [ref for ref in (queued.item, output, told, *details.values(), *(part.content for part in prompt)) if ref]
    content = log.blobs([*refs, *(ref for one in found for ref in (one.body, one.heading) if ref is not None)])
    return {
        "kind": "task",
        **{name: _text(value) for name, value in row.items()},
        "matrix": queued.matrix or None,
        "item": _json(content, queued.item),
        "memories": [_found(content, number, one) for number, one in enumerate(found, 1)],
        "reranker": None if prepared is None else prepared.reranker or None,
        "searched_without": list(() if prepared is None else prepared.without),
        "shortened": None if prepared is None or prepared.shortened is None else words_of(prepared.shortened),
        "parts": _parts(log, task, prepared),
        "prompt": [{"role": part.role, "content": _str(content, part.content)} for part in prompt],
        "output": _json(content, output),
        **(likelihoods.as_record(content[told]) if told in content else {}),
        "error": {"code": code, "message": message} if code else None,
        "erased": sorted(set(refs) - content.keys()),
        "attempts": [
            {**attempt, "detail": _str(content, details.get(attempt["attempt"]))} for attempt in _attempts(log, task)
        ],
    }


def _parts(log: EventLog, task: str, prepared: e.TaskPrepared | None) -> list[dict[str, Any]]:
    """The tasks that condensed parts of a task's texts, in order."""
    if prepared is None or prepared.shortened is None or not any(one.notes for one in prepared.shortened.texts):
        return []
    names = ("task", "id", "status", "tok_in", "tok_out")
    rows = log.file.ask(
        f"""SELECT {", ".join(names)} FROM tasks WHERE run = ? AND task IN (
            SELECT task FROM events WHERE run = ? AND type = 'task.queued' AND data->>'$.part_of' = ?)
        ORDER BY queued, path""",
        [prepared.run, prepared.run, task],
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def run_story(log: EventLog, run: str) -> dict[str, Any]:
    """Everything of a run: its recipe and parameters, its limits, its steps with counts, its first failures.

    `engine` is how the benches did while it ran, with the counts behind that; `None` where nothing was measured.
    """
    names = ["run", "name", "status", "started", "ended", "tasks", "succeeded", "failed", "tokens", "seconds", "file"]
    found = log.file.ask(f"SELECT {', '.join(names)} FROM runs WHERE run = ?", [run])[0]
    row = {name: _text(value) for name, value in zip(names, found, strict=True)}
    sql = f"SELECT seq, ts, source, data FROM events WHERE run = ? AND (type LIKE 'run.%' OR {_STEERING}) ORDER BY seq"
    events = [
        Event(seq=seq, ts=ts, source=source, body=e.decode_body(data))
        for seq, ts, source, data in log.file.ask(sql, [run])
    ]
    created = events[0].body
    assert isinstance(created, e.RunCreated)
    limits = [one.body for one in events if isinstance(one.body, e.RunCreated | e.RunResumed | e.RunChanged)]
    deadline = next((body.deadline_at for body in reversed(limits) if body.deadline_at is not None), None)
    content = log.blobs([created.recipe, created.params])
    steps = log.file.ask(
        """SELECT step, count(*), count(*) FILTER (status = 'succeeded'), count(*) FILTER (status = 'failed'),
            count(*) FILTER (status = 'skipped'), count(*) FILTER (status = 'cancelled'),
            count(*) FILTER (cached IS NOT NULL), sum(tok_in + tok_out)::BIGINT
        FROM tasks WHERE run = ? GROUP BY step ORDER BY min(queued), step""",
        [run],
    )
    step_names = ("step", "tasks", "succeeded", "failed", "skipped", "cancelled", "cached", "tokens")
    failures = log.file.ask(
        """SELECT task, step, id, error_code, error_message FROM tasks
        WHERE run = ? AND status = 'failed' ORDER BY ended LIMIT ?""",
        [run, FIRST_FAILURES],
    )
    return {
        "kind": "run",
        **row,
        "inputs": created.inputs,
        "fingerprint": created.fingerprint,
        "params": _json(content, created.params),
        "deadline": _text(datetime.fromtimestamp(deadline, UTC).replace(tzinfo=None)) if deadline else None,
        "budget_tokens": next((b.budget_tokens for b in reversed(limits) if b.budget_tokens is not None), None),
        "engine": _engine(log, run),
        "steps": [dict(zip(step_names, step, strict=True)) for step in steps],
        "failures": [dict(zip(("task", "step", "id", "code", "message"), one, strict=True)) for one in failures],
        "history": [
            {"seq": event.seq, "type": e.tag_of(event.body), "reason": getattr(event.body, "reason", None)}
            for event in events
            if not _is_of_rule(event)
        ],
        "rules": _rules(log, [event for event in events if _is_of_rule(event)]),
        "recipe": _str(content, created.recipe),
    }


def _found(content: dict[str, bytes], number: int, one: e.Recalled) -> dict[str, Any]:
    """A memory that was found for a task. Its text is `None` where it was forgotten since."""
    source = source_of(one.path, _str(content, one.heading) or "", one.page, one.by)
    return {
        "id": f"m{number}",
        "uid": one.uid,
        "label": one.label.value,
        "score": round(one.score, 3),
        "relevance": None if one.relevance is None else round(one.relevance, 3),
        "fused_rank": one.fused_rank,
        "source": source,
        "text": _str(content, one.body),
    }


def _is_of_rule(event: Event) -> bool:
    return not e.tag_of(event.body).startswith("run.")


def _rules(log: EventLog, events: list[Event]) -> list[dict[str, Any]]:
    """What rules, and people who were asked, did to the run, in words; with the rows that a rule fired on."""
    refs = {event.seq: event.body.rows for event in events if isinstance(event.body, e.RuleFired)}
    content = log.blobs(list(refs.values()))
    return [
        {"seq": event.seq, "told": telling.told(event.body, event.ts, {})}
        | ({"rows": (_json(content, refs[event.seq]) or {}).get("rows")} if event.seq in refs else {})
        for event in events
    ]


def _engine(log: EventLog, run: str) -> dict[str, Any] | None:
    """What benches did during the run, as figures and as counts."""
    found = log.file.ask("SELECT data FROM events WHERE run = ? AND type = 'bench.measured'", [run])
    counts = Counts()
    for (data,) in found:
        body = e.decode_body(data)
        if isinstance(body, e.BenchMeasured):
            counts = plus(counts, body)
    return {**msgspec.structs.asdict(figures(counts)), **msgspec.structs.asdict(counts)} if found else None


def _attempts(log: EventLog, task: str) -> list[dict[str, Any]]:
    names = ["attempt", "worker", "outcome", "started", "ended", "ms", "tok_in", "tok_out", "error_code",
             "error_message"]  # fmt: skip
    rows = log.file.ask(f"SELECT {', '.join(names)} FROM attempts WHERE task = ? ORDER BY attempt", [task])
    return [{name: _text(value) for name, value in zip(names, row, strict=True)} for row in rows]


def _text(value: Any) -> Any:
    return value.isoformat(timespec="milliseconds") + "Z" if isinstance(value, datetime) else value


def _str(content: dict[str, bytes], ref: Ref | None) -> str | None:
    return content[ref].decode("utf-8", "replace") if ref in content else None


def _json(content: dict[str, bytes], ref: Ref | None) -> Any:
    """Content as JSON, or as its text where it is none."""
    if ref not in content:
        return None
    try:
        return msgspec.json.decode(content[ref])
    except msgspec.DecodeError:
        return _str(content, ref)
