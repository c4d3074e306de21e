"""What `gx --help` lists: the verbs by what they are for, a line each; and a group's own verbs, in their own words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from gx import output
from gx.cli import interrupt

WIDEST_LINE = 64
"""Characters that fit beside the longest verb in a terminal of 80 columns."""

CHAPTERS = {
    "Run": {
        "run": "Run a recipe over its rows: one JSON line a row on stdout",
        "map": "Ask a model the same of every row on stdin, without a recipe",
        "ask": "Ask a model one question; the answer comes as plain text",
        "eval": "Run a recipe and compare its answers with labels",
        "burst": "Rent GPUs for what this machine can't do in time, under a cap",
    },
    "Write recipes": {
        "init": "Write a recipe to start from, and make this folder a workspace",
        "validate": "Check recipes without running them",
        "schema": "Print the JSON Schema of a recipe, for editors",
        "models": "List, fetch, prepare and delete models",
        "memory": "What agents remember, and documents that they cite",
    },
    "Watch": {
        "monitor": "Watch a run full-screen, and steer it from there",
        "ps": "What runs now: progress, backlog, pace, time to go, workers",
        "wait": "Wait until a run is over, and exit with its exit code",
        "runs": "List the runs of this workspace, the newest first",
        "show": "All that is known of a run or a task: prompt, answer, attempts",
        "why": "Why a task stands as it does, why a run ended, why it burst",
        "spend": "What runs took: tokens, seconds, and what containers cost",
    },
    "Steer": {
        "pause": "Begin nothing new in a run; what is running ends",
        "resume": "Let a paused run go on; begin an interrupted one again",
        "change": "Change a live run's limits: concurrency, priority, budget",
        "answer": "Answer what a run asks a person, or list what it asks",
        "requeue": "Take back what is running; it runs anew, and costs no retry",
        "retry": "Run the failed rows of a run once more",
        "cancel": "Give a run up for good, or some of its tasks",
    },
    "Compare": {
        "fork": "Run again with changes; what they don't touch is reused",
        "diff": "Compare two runs row by row, and what each took",
        "replay": "Play a recorded run through another policy, on paper",
    },
    "Hand on": {
        "export": "Write a run's results: JSON lines, CSV, Parquet; or its events",
        "report": "Tell a run on one page: progress, speeds, cost, failures",
        "sql": "Ask the log in SQL; it can be read, never changed",
        "log": "Print the events of the log, one JSON object a line",
        "audit": "List what of a run left this machine",
    },
    "Keep": {
        "erase": "Erase the content of a run or a task from the disk",
        "gc": "Archive old runs, and remove what is left over",
        "backup": "Copy the log to a folder while runs go on, and verify it",
        "verify": "Check that every event is there and unchanged",
        "repair": "Mend a log whose end is damaged",
    },
    "Set up": {
        "doctor": "Check what a run needs; --tune measures what is fastest here",
        "config": "Show every setting, its value and its source",
        "node": "The process that keeps the model loaded: start, stop, status",
        "cloud": "Deploy and look after what bursts rent",
    },
}
"""Every verb, with what it does, in the order in which people come to need them."""


class Menu(TyperGroup):
    """A group that lists its verbs in the order of their use, and suggests the nearest for a mistyped one.

    Its help and that of its verbs is written as all output is: that it can't be is an error in words.
    """

    def get_help_option(self, ctx: Any) -> Any:
        """--help of the group itself."""
        return _written(super().get_help_option(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that is named first, which makes its own --help."""
        name, verb, rest = super().resolve_command(ctx, args)
        if verb is not None:
            _written(verb.get_help_option(ctx))
        return name, verb, rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Each verb with its own first sentence, whole."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.get_short_help_str(500)) for name, verb in self.commands.items()])


class Verbs(Menu):
    """The verbs of `gx` itself: by chapters; and a reader of the output that goes away ends any of them."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The chapters; the lines of all of them begin in one column."""
        widest = max(map(len, self.commands))
        for chapter, verbs in CHAPTERS.items():
            with formatter.section(chapter):
                formatter.write_dl([(verb.ljust(widest), line) for verb, line in verbs.items()])

    def make_context(self, *args: Any, **more: Any) -> Any:
        """Read the command line up to the verb: --help and --version are answered here."""
        with _as_sigpipe_would():
            return super().make_context(*args, **more)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        interrupt.unwind()
        with _as_sigpipe_would():
            return super().invoke(ctx)


@contextlib.contextmanager
def _as_sigpipe_would() -> Iterator[None]:
    """A reader of the output that goes away ends the block, and the process."""
    try:
        yield
    except BrokenPipeError:
        output.forget_stdout()
        raise typer.Exit(output.ExitCode.closed_pipe) from None


def _written(option: Any) -> Any:
    """The option that asks for help, which is written by `gx.output`; `None` where there is none."""
    if option is not None:
        option.callback = _write_help
    return option


def _write_help(ctx: Any, param: Any, is_asked: bool) -> None:
    if is_asked and not ctx.resilient_parsing:
        output.write(ctx.get_help() + "\n")
        ctx.exit()
