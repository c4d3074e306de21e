"""Driving a run from a terminal or a pipe: Ctrl-C once and twice, a reader that goes away, progress, the summary."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from gx import output
from gx.core.errors import GxError
from gx.output import ExitCode

if TYPE_CHECKING:
    from anyio import CancelScope

    from gx.cli.progress import StatusLine
    from gx.node.call import Client
    from gx.node.client import RunEnd, Started, Submission
    from gx.node.remote import RemoteRun
    from gx.node.workspace import Workspace
    from gx.run.record import Record
    from gx.settings import Settings

STOP_S = 2.0
"""How long the last results of a run that was stopped may take."""
WAITS_S = 1.0
"""How long a run must have waited for a person before it is left: what follows from a result takes a moment."""


def execute(
    asked: Submission,
    settings: Settings,
    workspace: Workspace,
    *,
    on_records: Callable[[list[Record], Started], None],
    show_progress: bool = True,
    is_ordered: bool = False,
    with_input: bool = True,
    beside: Callable[[RemoteRun], Coroutine[Any, Any, None]] | None = None,
) -> RunEnd:
    """Run what was asked for, to its end or its interruption; `on_records` is called in a thread, in order;
    that of the rows where the run `is_ordered`, and with what these hold if `with_input`. `beside` runs as long as the
    run does.

    :raises GxError: if it can't begin, or the log can't be written any more.
    """
    import anyio
    import anyio._backends._asyncio  # loaded, as the next ones are, before an event loop answers a Ctrl-C

    from gx.cli import interrupt, progress  # noqa: F401
    from gx.node import remote

    interrupt.hand_over()
    asked = _with_collector(asked, settings)
    workspace.make()
    begin = partial(
        remote.submit,
        workspace.folder,
        asked,
        settings,
        is_ordered=is_ordered,
        with_input=with_input,
        on_note=output.note,
    )
    try:
        return anyio.run(_execute, begin, settings, on_records, show_progress, beside)
    except BaseExceptionGroup as group:  # the run had begun: what ends it comes out of a task group
        cause = _cause(group)
        if isinstance(cause, GxError):
            output.note(f"interrupted. What is finished is kept; go on with: {resume_command()}")
        raise cause from None


def detach(asked: Submission, settings: Settings, workspace: Workspace) -> str:
    """Ask for a run that goes on without this process; its id. :raises GxError: if it can't begin."""
    from gx.core.errors import UsageError
    from gx.node import wire
    from gx.node.client import Started
    from gx.node.names import as_told
    from gx.node.start import insist

    if asked.inputs == "-":
        raise UsageError("a detached run can't read stdin, which ends with this command", hint="give a file with -i")
    workspace.make()
    asked = _with_collector(asked, settings)
    token = msgspec.structs.replace(as_told(asked), token=os.urandom(6).hex())
    body = wire.Asked(submission=token, settings=settings)

    def ask(node: Client) -> Started:
        started: Started = node.ask("POST", "/v1/runs", body, kind=Started, timeout_s=None)
        return started

    started = insist(workspace.folder, ask, on_note=output.note)
    output.note(f"run {started.run} goes on by itself; `gx ps` shows it, `gx wait {started.run}` waits for it")
    return started.run


def _with_collector(asked: Submission, settings: Settings) -> Submission:
    """What is asked for, and where its traces and metrics go, if the settings want them sent.

    :raises GxError: if the environment names no collector that can be told.
    """
    if not settings.otel or asked.otel is not None:
        return asked
    from gx.otel.collector import check_collector, collector_of

    found = collector_of(os.environ)
    if found is not None:
        check_collector(found, is_offline=settings.offline)
    return msgspec.structs.replace(asked, otel=found)


async def _execute(
    begin: Callable[[], Coroutine[Any, Any, RemoteRun]],
    settings: Settings,
    on_records: Callable[[list[Record], Started], None],
    show_progress: bool,
    beside: Callable[[RemoteRun], Coroutine[Any, Any, None]] | None,
) -> RunEnd:
    import anyio

    from gx.cli.progress import StatusLine
    from gx.core.view import RunStatus

    try:
        run = await begin()
    except anyio.get_cancelled_exc_class():  # Ctrl-C: the thread that asks a node would go on, and begin it after all
        os._exit(ExitCode.interrupted)
    _announce(run.started)
    status = StatusLine(run.started.run, is_shown=show_progress)
    delivery = _Delivery()
    async with anyio.create_task_group() as group:
        group.start_soon(_obey_signals, run, settings.drain_s, group.cancel_scope)
        group.start_soon(status.follow, run)
        group.start_soon(_leave_to_a_person, run)
        if beside is not None:
            group.start_soon(beside, run)
        await delivery.carry(run, on_records, settings.drain_s, status)
        group.cancel_scope.cancel()
    status.clear()
    status.tell(run)
    for note in run.notes:
        output.note(note)
    end = await run.end(is_delivered=delivery.is_complete, error=delivery.error())
    now = run.progress()
    if end.status is RunStatus.interrupted and not end.reason and now is not None and now.waits:  # for others, too
        end = msgspec.structs.replace(end, questions=now.questions, paused_steps=now.paused_steps)
    return msgspec.structs.replace(end, is_unread=delivery.has_no_reader)


class _Delivery:
    """Hands the records over. `is_complete` says that each was taken; `refused` is why one was not."""

    def __init__(self) -> None:
        self.is_complete = False
        self.refused: OSError | None = None

    async def carry(
        self,
        run: RemoteRun,
        on_records: Callable[[list[Record], Started], None],
        drain_s: float,
        status: StatusLine,
    ) -> None:
        """Until the run is over; a record that can't be handed over drains it."""
        import anyio
        import anyio.to_thread

        with anyio.CancelScope() as scope:
            async for chunk in run.records():
                if self.refused is not None:
                    continue
                status.clear()
                try:
                    await anyio.to_thread.run_sync(on_records, chunk, run.started, abandon_on_cancel=True)
                except OSError as error:
                    self.refused = error
                    output.forget_stdout()
                    await run.drain("its reader went away" if self.has_no_reader else "its results can't be written")
                    scope.deadline = anyio.current_time() + drain_s
            self.is_complete = self.refused is None

    @property
    def has_no_reader(self) -> bool:
        """Whether whoever read the records went away."""
        return isinstance(self.refused, BrokenPipeError)

    def error(self) -> GxError | None:
        """What there is to tell: a reader that went away knows it."""
        if self.refused is None or self.has_no_reader:
            return None
        why, where = self.refused.strerror or str(self.refused), self.refused.filename or "stdout"
        return GxError(f"{where} can't be written: {why}", hint="the results are kept in the log")


def _announce(started: Started) -> None:
    if started.is_resumed and started.total:
        output.note(f"run {started.run} goes on: {started.done_before:,} of {started.total:,} tasks were done before")
    else:
        output.note(f"run {started.run}")


async def _obey_signals(run: RemoteRun, drain_s: float, scope: CancelScope) -> None:
    """The first Ctrl-C drains, the second stops now. Neither loses a finished task.

    A signal that the caller had ignored, as `nohup` does SIGHUP, stays ignored.
    """
    import anyio

    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    with anyio.open_signal_receiver(*heeded) as signals:
        async for first in signals:
            if first is signal.SIGHUP:  # the terminal is gone, and nobody can press anything
                await run.stop("its terminal went away")
                scope.cancel()
            break
        output.note("\nfinishing what is running; press Ctrl-C again to stop now")
        await run.drain("interrupted")
        with anyio.move_on_after(drain_s):
            async for _ in signals:
                break
        await run.stop("stopped at once")
        await anyio.sleep(STOP_S)
    scope.cancel()


async def _leave_to_a_person(run: RemoteRun) -> None:
    """Leave a run that only a person can let go on, where no terminal is there to tell one."""
    import anyio

    from gx.node.client import WAITS

    if output.has_person():
        return
    since: float | None = None
    while True:
        now = run.progress()
        since = None if now is None or not now.waits else since or anyio.current_time()
        if since is not None and anyio.current_time() - since >= WAITS_S:
            await run.drain(WAITS)
            return
        await anyio.sleep(0.1)


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a person should hear of what ended a task group: an error of ours, else the first one."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.append(_cause(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((leaf for leaf in leaves if isinstance(leaf, GxError)), leaves[0])


def finish(end: RunEnd) -> ExitCode:
    """Say on stderr how the run ended, and what to do about the rest."""
    from gx.core.view import RunStatus

    for warning in end.warnings:
        output.note(f"note: {warning}")
    for step, reason in end.skipped_steps.items():
        output.note(f"note: step `{step}` was skipped: {reason}")
    for row, code, message in end.first_errors:
        output.note(f"failed: {row}: {code}: {message}")
    output.note(_summary(end))
    if end.error is not None:
        output.show_error(end.error)
        if end.status is not RunStatus.finished:
            output.note(_go_on(end))
    elif end.status is RunStatus.stopped and end.limit == "rule":
        output.note(f"stopped: {end.reason}. Go on all the same: {resume_command(end.run)}")
    elif end.status is RunStatus.stopped:
        more = {"deadline": "--deadline 1h", "cap": "--budget '$USD'"}.get(end.limit, "--budget TOKENS")
        again = f": {resume_command()} {more}" if _begins_runs() else f", by the command that began it and {more}"
        output.note(f"stopped: {end.reason}. Go on with another limit{again}")
    elif end.status is RunStatus.cancelled:
        output.note(f"cancelled: {end.reason}" if end.reason else "cancelled")
    elif end.status is RunStatus.running:
        output.note("it is neither over nor live: its node died, and nobody came back")
        output.note(_go_on(end))
    elif end.status is RunStatus.interrupted and end.is_waiting:
        output.note(_waiting(end))
    elif end.status is not RunStatus.finished:
        output.note(_go_on(end))
    return end.exit_code


def _summary(end: RunEnd) -> str:
    parts = [f"{end.succeeded:,} succeeded"]
    named = {"from the log": end.reused, "failed": end.failed, "failed and excused": end.excused}
    named |= {"skipped": end.skipped, "cancelled": end.cancelled, "left": end.left}
    parts += [f"{count:,} {name}" for name, count in named.items() if count]
    tokens = f"{end.tokens_in:,} tokens in, {end.tokens_out:,} out"
    return f"run {end.run}: {', '.join(parts)}; {tokens}; {end.seconds:.1f} s"


def _go_on(end: RunEnd) -> str:
    """What to do about the rest of an interrupted run."""
    if end.is_streamed:
        return "interrupted. What is finished is kept, and answered from the log when the same rows come again"
    return f"interrupted. What is finished is kept; go on with: {resume_command(end.run)}"


def _waiting(end: RunEnd) -> str:
    """What to do about a run that a person must let go on."""
    then = "" if end.is_streamed else f", then go on with: {resume_command(end.run)}"
    if end.questions:
        return f"waiting for a person. Answer with: gx answer {end.run}{then}"
    return f"waiting for a person: step {', '.join(end.paused_steps)} is paused. Go on with: {resume_command(end.run)}"


def resume_command(run: str = "") -> str:
    """What to type to go on: the same command, by the same way; without --fresh, which would begin anew, and without
    what is secret of an address that is told.

    Where the command was another one, as `gx wait`, it is the verb that resumes the run.
    """
    if run and not _begins_runs():
        return f"gx resume {run}"
    from gx.node.notices import told_again

    launcher = ["uv", "run", "gx"] if "UV_RUN_RECURSION_DEPTH" in os.environ else ["gx"]
    return shlex.join([*launcher, *(word for word in told_again(sys.argv[1:]) if word != "--fresh")])


def _begins_runs() -> bool:
    """Whether the command that was typed is one that begins runs, and goes on with them when it is typed again."""
    return len(sys.argv) < 2 or sys.argv[1] in ("run", "map", "ask", "eval")
