"""`gx monitor`: a run while it goes on, in the terminal. Parse, call, print: the monitor itself is `gx.tui`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from gx import output
from gx.cli import interrupt
from gx.cli.place import WorkspaceOpt
from gx.core.errors import UsageError
from gx.output import ExitCode

if TYPE_CHECKING:
    from gx.node.client import Submission
    from gx.node.workspace import Workspace
    from gx.settings import Settings
    from gx.tui.intents import Offer

FRAMES_S = "10"
"""Times a second that a screen is painted at most: what a line over SSH takes without falling behind."""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("monitor")(monitor)


def monitor(
    run: Annotated[
        str | None,
        typer.Argument(help="A run, by the start of its id; the newest live one, else the newest.", show_default=False),
    ] = None,
    theme: Annotated[str | None, typer.Option("--theme", help="dark, light, contrast or plain.")] = None,
    is_ascii: Annotated[
        bool | None, typer.Option("--ascii/--unicode", help="Draw with ASCII alone; by default as the terminal can.")
    ] = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Watch a run: its tasks, workers, throughput, failures, decisions; and pause, cancel, retry, answer, burst.

    Leaving it with q leaves the run going. ? lists the keys; `monitor_keys` in the settings changes them.

    Example: gx monitor triage-k3
    """
    from gx import settings
    from gx.node.workspace import Workspace

    require_terminal()
    found = settings.load(workspace=workspace, monitor_theme=theme, monitor_ascii=is_ascii)
    leave(show(run, found, Workspace.find(found.workspace)))


def begin(asked: Submission, found: Settings, place: Workspace) -> None:
    """Begin a run that goes on by itself, and watch it; leave with its exit code, if it is over by then."""
    import msgspec

    from gx.cli import running

    require_terminal()
    run = running.detach(msgspec.structs.replace(asked, is_detached=True), found, place)
    leave(show(run, found, place) or _exit_code(run, place))


def require_terminal() -> None:
    """:raises UsageError: if there is no terminal to draw on."""
    if not all(one.isatty() for one in (sys.stdin, sys.stdout, sys.stderr)) or os.environ.get("TERM") == "dumb":
        raise UsageError("the monitor needs a terminal", hint="`gx ps` and `gx log --follow` do without one")


def show(run: str | None, found: Settings, place: Workspace) -> ExitCode:
    """The monitor, until it is left; an error if it failed. :raises SettingsError: if its theme or a key is none."""
    os.environ.setdefault("TEXTUAL_FPS", FRAMES_S)
    from gx.tui.feed import Feed

    feed = Feed(place)
    feed.start()  # the log is asked while Textual is loaded

    import asyncio

    from gx.core.errors import SettingsError
    from gx.tui import keys
    from gx.tui.app import Monitor
    from gx.tui.glyphs import glyphs_for
    from gx.tui.themes import PALETTES

    if found.monitor_theme not in PALETTES:
        raise SettingsError(f"monitor_theme: expected one of {', '.join(PALETTES)}, got {found.monitor_theme!r}")
    app = Monitor(
        feed,
        glyphs_for(sys.stdout.encoding or "ascii", is_ascii=found.monitor_ascii),
        wanted=run,
        theme=found.monitor_theme,
        keymap=keys.keymap(found.monitor_keys or {}),
        plan_burst=lambda name: planned(name, place),
    )
    loop = asyncio.new_event_loop()  # asyncio.run would wait for whoever asks the log
    heard = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]
    for number in heard:
        loop.add_signal_handler(number, partial(app.exit, return_code=ExitCode.interrupted))
    try:
        app.run(loop=loop)
    finally:  # nobody runs the loop any more
        for number in heard:
            loop.remove_signal_handler(number)
        interrupt.leave_at_once()
    if app.return_code:
        return ExitCode(app.return_code)
    output.note(app.farewell)
    return ExitCode.ok


def leave(code: ExitCode) -> NoReturn:
    """End the process now: a thread that waits for an answer would keep the shell waiting."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # the terminal is gone
            stream.flush()
    os._exit(code)


def planned(run: str, place: Workspace) -> Offer:
    """A burst of that run on paper, with the price shown; one that is rehearsed stays so, and asks for no money.

    :raises GxError: if nothing can be told of it.
    """
    import msgspec

    from gx.cli import burst, paper
    from gx.cli.leave import terms_of
    from gx.tui.intents import Offer

    name, recipe, outlooks, _ = burst.of_run(place, run)
    is_rehearsal = _is_rehearsed(name, place)
    terms = terms_of(recipe, mode="auto", is_rehearsal=is_rehearsal)
    plan = paper.plan_of(paper.scene_of_run(place, name, recipe), terms, recipe)
    choice, cost = plan.sheet.choices[plan.chosen], plan.estimates[plan.chosen]
    cap = terms.usd if terms.usd is not None else max(0.01, cost.high_usd, plan.reserve_usd)
    leaves = [step for step, one in outlooks.items() if not one.reason]
    most = f"{terms.max_containers} containers"
    if is_rehearsal:
        asked = f"Rehearse with up to {most}, which are processes on this machine? Nothing is paid, and nothing leaves."
        leaving = []
    else:
        asked = f"Rent up to {most} for at most ${cap:.2f}, over the run's whole life?"
        told = f"may leave this machine: prompts of step {', '.join(leaves)}"
        leaving = [told if leaves else "nothing may leave this machine"]
    lines = (
        *_columns([paper.row_of(plan, n) for n in range(len(plan.sheet.choices))]),
        "",
        f"placement: {plan.sheet.verdict.reason}",
        f"estimate: {cost} for {choice.containers} x {choice.gpu}"
        if choice.containers
        else "estimate: this machine alone",
        f"prices: {plan.source}, {plan.date}",
        *leaving,
        "",
        asked,
    )
    return Offer(lines=lines, terms=terms if is_rehearsal else msgspec.structs.replace(terms, usd=cap))


def _is_rehearsed(run: str, place: Workspace) -> bool:
    """Whether what the run may rent is rehearsed, by its newest terms."""
    from gx.core import event as e
    from gx.node.reader import ask

    sql = f"""SELECT data::VARCHAR AS data FROM events
        WHERE run = '{run}' AND type IN ('run.created', 'burst.allowed') ORDER BY seq DESC LIMIT 1"""
    (row,) = ask(place, lambda log: log.table(sql, timeout_s=60.0, max_rows=1)).rows
    body = e.decode_body(row["data"].encode())
    terms = body.terms if isinstance(body, e.BurstAllowed) else body.burst if isinstance(body, e.RunCreated) else None
    return terms is not None and terms.is_rehearsal


def _columns(rows: list[dict[str, str]]) -> list[str]:
    """The rows below the names of their columns, each column as wide as its widest cell."""
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _exit_code(run: str, place: Workspace) -> ExitCode:
    """How the run ended; ok while it goes on, or would go on, as a run does whose node died."""
    from gx.core.errors import GxError
    from gx.core.view import RunStatus
    from gx.node import wire
    from gx.node.call import NodeGone
    from gx.node.start import ensure

    try:
        client = ensure(place.folder)
        if run in [one["run"] for one in client.ask("GET", "/v1/node")["runs"]]:
            return ExitCode.ok
        end: wire.End = client.ask("GET", f"/v1/runs/{run}/end", kind=wire.End, timeout_s=None)
    except (NodeGone, GxError):
        return ExitCode.ok
    found = wire.ended(end)
    return ExitCode.ok if found.status is RunStatus.running else found.exit_code
