"""An event as a sentence: what happened, with the figures that stand in it.

It reads the event and what is known of benches, and nothing else. Every kind of event has its sentence, so that a kind
without one is a test that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from gx.core import event as e
from gx.core.message import Label
from gx.core.task import EdgeLease, Lease
from gx.core.terms import AT_CAP
from gx.core.words import counted
from gx.run.long.telling import words_of

Benches = Mapping[tuple[int, int], e.BenchStarted]
"""Benches by (epoch, incarnation)."""
SHORT = 12
"""Characters of a digest that are enough to tell it from others."""


def told(body: e.Body, ts: int, benches: Benches) -> str:
    """The sentence, without a full stop; `ts` is when it was written, in µs."""
    if isinstance(body, e.TaskLeased):
        alone = ", alone, since it was lost before" if body.alone else ""
        return f"attempt {body.attempt} was given to {body.worker}{where(body.lease, benches)}{alone}"
    if isinstance(body, e.TaskRetried):
        wait_s = max(body.not_before - ts / 1e6, 0.0)
        return f"attempt {body.attempt + 1} is due in {wait_s:.1f} s, not before {clock(body.not_before)}"
    if isinstance(body, e.RunCreated | e.RunResumed | e.RunChanged):
        return _WORDS[type(body)](body) + limits(body, ts)
    return _WORDS[type(body)](body)


def where(lease: Lease, benches: Benches) -> str:
    """Where a lease is bound to: `, on bench 1 of node 3, which has 4 slots`."""
    if not isinstance(lease, EdgeLease):
        return f", on {lease.gpu} (call {lease.call})"
    bench = benches.get((lease.epoch, lease.incarnation))
    slots = "" if bench is None else f", which has {counted(bench.slots, 'slot')}"
    return f", on bench {lease.incarnation} of node {lease.epoch}{slots}"


def limits(body: e.RunCreated | e.RunResumed | e.RunChanged, ts: int) -> str:
    """The limits that an event sets: `, with a deadline at 21:03:10 (30 s later) and a budget of 500 tokens`."""
    found = []
    if body.deadline_at is not None:
        found.append(f"a deadline at {clock(body.deadline_at)} ({body.deadline_at - ts / 1e6:,.0f} s later)")
    if body.budget_tokens is not None:
        found.append(f"a budget of {counted(body.budget_tokens, 'token')}")
    return f", with {' and '.join(found)}" if found else ""


def clock(at: float) -> str:
    """An instant in seconds since 1970, as the time of its day in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def by(body: Any) -> str:
    """`by ada, process 12`, or nothing where the event doesn't say."""
    return f" by {body.by}" if body.by else ""


def took(body: e.TaskSucceeded | e.AttemptFailed | e.AttemptSuperseded) -> str:
    """What an attempt cost: `12 tokens in, 30 out, 1.2 s`."""
    seconds = "" if body.ms is None else f", {body.ms / 1e3:.2f} s"
    return f"{counted(body.tok_in, 'token')} in, {body.tok_out:,} out{seconds}"


def _queued(body: e.TaskQueued) -> str:
    matrix = "".join(f", {name}={value}" for name, value in body.matrix.items())
    part = f", part {body.span[0]} to {body.span[1]} of level {body.level}" if body.span else ""
    bad = f"; its row can't be used: {body.error}" if body.error else ""
    return f"queued: row {body.id}{matrix}{part} of step {body.step}{bad}"


def _succeeded(body: e.TaskSucceeded) -> str:
    if body.cached is not None:
        return f"answered from task {body.cached}, whose key is equal ({body.key[:SHORT]}); it cost nothing"
    cached = f", {body.tok_cached:,} of them from the cache" if body.tok_cached else ""
    return f"attempt {body.attempt} gave the answer: {took(body)}{cached}{cut(body)}"


def cut(body: e.TaskSucceeded) -> str:
    """How the text was cut, if it was."""
    if body.finish == "length":
        return f"; the text was cut at max_tokens, after {counted(body.tok_out, 'token')}"
    if body.finish == "context":
        return f"; the text was cut where the model's context ended, after {counted(body.tok_out, 'token')}"
    return ""


def _allowed(b: e.BurstAllowed) -> str:
    terms = b.terms
    kinds = f" of {' or '.join(terms.gpu)}" if terms.gpu else ""
    cap = "for nothing, in a rehearsal" if terms.is_rehearsal else f"for at most ${terms.usd or 0.0:.2f} in all"
    most = counted(terms.max_containers, "container")
    return f"bursting ({terms.mode}) was allowed{by(b)}: up to {most}{kinds}, {cap}"


def _lost(body: e.AttemptLost) -> str:
    alone = ", although nothing ran beside it" if body.alone else ""
    blame = f"the task may be why{alone}" if body.is_suspect else "that is not held against the task"
    return f"attempt {body.attempt} was lost: {body.reason}; it costs no retry, and {blame}"


def _changed(body: e.RunChanged) -> str:
    found = []
    if body.concurrency is not None:
        found.append(f"at most {counted(body.concurrency, 'task')} at once" if body.concurrency else "no such limit")
    if body.priority is not None:
        found.append(f"priority {body.priority:g}")
    if body.is_detached:
        found.append("need no client")
    return f"changed{by(body)}" + (f" to {', '.join(found)}" if found else "")


def _routed(body: e.StepRouted) -> str:
    if body.agent is None and body.model is None:
        return f"step {body.step} went the recipe's own way again{by(body)}"
    to = f"agent {body.agent}" if body.agent is not None else f"model {body.model}"
    return f"step {body.step} was routed to {to}{by(body)}"


def _finished(body: e.RunFinished) -> str:
    counts = {"failed": body.failed, "skipped": body.skipped, "cancelled": body.cancelled}
    others = "".join(f", {n:,} {name}" for name, n in counts.items() if n)
    return f"finished: all tasks ended: {body.succeeded:,} succeeded{others}"


def _prepared(body: e.TaskPrepared) -> str:
    said = f"prepared for model {body.model[:SHORT]}: key {body.key[:SHORT]}, seed {body.seed}"
    if body.found is not None:
        said += f"; {counted(len(body.found), 'memory', 'memories')} found"
        said += f", reranked by {body.reranker[:SHORT]}" if body.reranker else ""
    said += "".join(f" ({one})" for one in body.without)
    said += "" if body.shortened is None else f"; {words_of(body.shortened)}"
    return said + ("; private: it may not leave this machine" if body.label is Label.private else "")


_WORDS: dict[type, Callable[[Any], str]] = {
    e.LogOpened: lambda b: f"the log was begun, in format {b.format}, by gx {b.gx}",
    e.LogArchived: lambda b: f"events {b.first:,} to {b.last:,} went into the archive {b.name}",
    e.NodeStarted: lambda b: f"node {b.epoch} took the workspace: process {b.pid} on {b.host or 'this machine'}",
    e.NodeStopped: lambda b: f"node {b.epoch} let the workspace go",
    e.BenchStarted: lambda b: f"bench {b.incarnation} of node {b.epoch} came up with {counted(b.slots, 'slot')}",
    e.BenchExited: lambda b: f"bench {b.incarnation} of node {b.epoch} ended: {b.reason}",
    e.BenchMeasured: lambda b: (
        f"bench {b.incarnation} had computed {b.prefill_tokens:,} prompt tokens and written {b.decode_tokens:,}; "
        f"{b.slots_busy} of {b.slots} slots were busy"
    ),
    e.ClockJumped: lambda b: f"the clock jumped by {b.by_s:,.0f} s, as after a sleep; deadline and waits moved with it",
    e.RunCreated: lambda b: f"begun{by(b)}{', detached' if b.is_detached else ''}",
    e.RunResumed: lambda b: f"resumed{by(b)}{', detached' if b.is_detached else ''}",
    e.RunInterrupted: lambda b: f"interrupted{by(b)}: {b.reason}",
    e.RunCancelled: lambda b: f"cancelled{by(b)}: {b.reason}",
    e.RunPaused: lambda b: f"paused{by(b)}: nothing new began",
    e.RunContinued: lambda b: f"continued{by(b)}",
    e.RunChanged: _changed,
    e.RunStopped: lambda b: f"stopped {'by a rule' if b.limit == 'rule' else f'at its {b.limit}'}: {b.reason}",
    e.StopAsked: lambda b: f"to be stopped{by(b)}, once what was running had ended: {b.reason}",
    e.RunFinished: _finished,
    e.InputsRead: lambda b: f"{counted(len(b.rows), 'row')} of the input read",
    e.InputsEnded: lambda b: f"the input ended after {counted(b.rows, 'row')}",
    e.StepUnfolded: lambda b: f"step {b.step} has its tasks: {b.tasks:,}",
    e.StepGrouped: lambda b: f"level {b.level} of step {b.step} was cut into {counted(len(b.spans), 'part')} that fit",
    e.StepSkipped: lambda b: f"step {b.step} was skipped: {b.reason}",
    e.StepPaused: lambda b: f"step {b.step} was paused{by(b)}: nothing more of it began",
    e.StepContinued: lambda b: f"step {b.step} was continued{by(b)}",
    e.StepRouted: _routed,
    e.RuleFired: lambda b: f"rule {b.rule} turned true, from the events up to #{b.read_seq}: {b.action}",
    e.RuleCleared: lambda b: f"rule {b.rule} turned false again, from the events up to #{b.read_seq}",
    e.RuleFailed: lambda b: f"rule {b.rule} had no answer, and the run went on without it: {b.code}: {b.message}",
    e.BurstAsked: lambda b: f"a burst was asked for{by(b)}: {b.reason}",
    e.NoticeLeaves: lambda b: (
        f"{b.bytes:,} bytes of a notice ({b.about}) left for {b.to}: {', '.join(b.fields)} (digest {b.digest[:SHORT]})"
    ),
    e.NoticeEnded: lambda b: f"a notice ({b.about}) {f'did not arrive: {b.error}' if b.error else 'arrived'} ({b.to})",
    e.TelemetryLeaves: lambda b: (
        f"{b.bytes:,} bytes of {b.sort} left for {b.to}: {', '.join(b.fields)} (digest {b.digest[:SHORT]})"
    ),
    e.TelemetryEnded: lambda b: (
        f"{counted(b.arrived, 'span')} arrived at {b.to}" + (f", {b.left:,} did not: {b.error}" if b.error else "")
    ),
    e.QuestionAsked: lambda b: f"a person was asked{by(b)} ({b.question}): {b.text} [{', '.join(b.choices)}]",
    e.QuestionAnswered: lambda b: f"question {b.question} was answered{by(b)}: {b.choice}",
    e.PlacementDecided: lambda b: f"placement: {b.reason}",
    e.BurstAllowed: _allowed,
    e.ContainerReserved: lambda b: (
        f"room for container {b.container} with {b.gpu} was reserved, at ${3600 * b.usd_per_s:.2f} an hour"
    ),
    e.ContainersRenewed: lambda b: f"{counted(len(b.containers), 'container')} vouched for anew",
    e.ContainerSeen: lambda b: (
        f"container {b.container} ({b.name}) was alive, {b.at - b.began_at:,.0f} s after its start"
    ),
    e.ContainerEnded: lambda b: f"container {b.container} is taken to have ended",
    e.RentRefused: lambda b: f"nothing could be rented, and the run went on here: {b.reason}",
    e.CapReached: lambda b: (
        f"the cap was reached: ${b.usd:.4f} of ${b.cap_usd:.4f} were spent, and a container more could cost "
        f"${b.reserve_usd:.4f}; {AT_CAP[b.then]}"
    ),
    e.CallMade: lambda b: f"attempt {b.attempt} went to a container with {b.gpu}, as call {b.call}",
    e.TaskQueued: _queued,
    e.TaskPrepared: _prepared,
    e.Egress: lambda b: (
        f"{b.bytes:,} bytes of attempt {b.attempt} left for {b.to}, made from {', '.join(b.fields) or 'no field'} "
        f"(digest {b.digest[:SHORT]})"
    ),
    e.TaskSucceeded: _succeeded,
    e.AttemptFailed: lambda b: f"attempt {b.attempt} failed with {b.code}: {b.message} ({took(b)})",
    e.AttemptLost: _lost,
    e.AttemptSuperseded: lambda b: (
        f"attempt {b.attempt} spoke late ({b.outcome}): it changes nothing, and counts as spent ({took(b)})"
    ),
    e.TaskFailed: lambda b: f"failed for good with {b.code}: {b.message}",
    e.TaskCancelled: lambda b: f"cancelled{by(b)}: {b.reason}",
    e.TaskSkipped: lambda b: f"skipped: {b.reason}",
    e.MemoryWritten: lambda b: f"{counted(len(b.memories), 'memory', 'memories')} written{by(b)}",
    e.MemoryForgotten: lambda b: f"{counted(len(b.uids), 'memory', 'memories')} forgotten{by(b)}",
    e.MemoryModelled: lambda b: (
        f"memories are embedded by {b.name} ({b.model[:SHORT]}, {b.dimensions} dimensions) from now on{by(b)}"
    ),
    e.ContentErased: lambda b: f"{counted(len(b.blobs), 'content')} of {b.subject} erased",
}
