"""`gx pause`, `gx resume`, `gx change`, `gx requeue`, `gx cancel`: saying what becomes of a run.

Each asks the workspace's node, and each is an event in the log with who asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gx import output
from gx.cli.place import RunArg, WorkspaceOpt, node_of, seconds
from gx.core.errors import UsageError

if TYPE_CHECKING:
    from gx.node.call import Client


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (pause, resume, change, requeue, cancel):
        app.command(verb.__name__)(verb)


def pause(run: RunArg, workspace: WorkspaceOpt = None) -> None:
    """Begin nothing new in a run; what is running ends. `gx resume RUN` lets it go on.

    Example: gx pause triage-k3m9xq; gx resume triage-k3m9xq
    """
    name = node_of(workspace).ask("POST", f"/v1/runs/{run}/pause")["run"]
    output.note(f"paused {name}; go on with: gx resume {name}")


def resume(run: RunArg, workspace: WorkspaceOpt = None) -> None:
    """Let a paused run go on; or begin an interrupted or stopped one again in the background, as --detach does.

    A live run without a client needs none from then on.

    Example: gx resume triage-k3m9xq && gx wait triage-k3m9xq
    """
    from gx.node.start import insist

    def ask(node: Client) -> str:
        status = node.ask("GET", "/v1/node")
        for one in () if status["is_leaving"] else status["runs"]:  # of a node that leaves it is told anyway
            if one["run"].startswith(run) and one["status"] == "draining":
                output.note(f"note: {one['run']} is ending, and this waits until it has")
        name: str = node.ask("POST", f"/v1/runs/{run}/resume", timeout_s=None)["run"]
        return name

    name = insist(node_of(workspace).folder, ask, on_note=output.note)
    output.note(f"{name} goes on; `gx wait {name}` waits for it")


def change(
    run: RunArg,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="At most so many tasks at once; 0 lifts that limit.", min=0)
    ] = None,
    priority: Annotated[float | None, typer.Option("--priority", help="Its share beside other runs.")] = None,
    deadline: Annotated[str | None, typer.Option("--deadline", help="How long it may take from now: 90s, 2h.")] = None,
    budget_tokens: Annotated[int | None, typer.Option("--budget-tokens", help="How many tokens in all.")] = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Change the limits of a live run; what is left out stays as it is.

    Example: gx change triage-3f --concurrency 4 --priority 0.5
    """
    asked: dict[str, Any] = {
        "concurrency": concurrency,
        "priority": priority,
        "deadline_s": None if deadline is None else seconds(deadline, flag="--deadline"),
        "budget_tokens": budget_tokens,
    }
    if all(value is None for value in asked.values()):
        raise UsageError(
            "there is nothing to change",
            hint="give --concurrency, --priority, --deadline or --budget-tokens",
        )
    name = node_of(workspace).ask("POST", f"/v1/runs/{run}/change", asked)["run"]
    changed = {what.removesuffix("_s").replace("_", " "): value for what, value in asked.items() if value is not None}
    output.note(f"{name}: " + ", ".join(f"{what} {value:g}" for what, value in changed.items()))


def requeue(
    run: RunArg,
    step: Annotated[str | None, typer.Option("--step", help="Only the tasks of this step.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Only this task.")] = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Take what a live run's workers have back into the queue; it runs anew, and costs no retry.

    Example: gx requeue triage-k3m9xq
    """
    name = node_of(workspace).ask("POST", f"/v1/runs/{run}/requeue", {"step": step, "task": task})["run"]
    output.note(f"{name}: {task or step or 'what was running'} waits again")


def cancel(
    run: RunArg,
    step: Annotated[str | None, typer.Option("--step", help="Only the tasks of this step.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Only this task.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the log.")] = "asked to",
    workspace: WorkspaceOpt = None,
) -> None:
    """Give a run up for good, or some of its tasks. What is finished stays; no later `gx run` goes on with it.

    Example: gx cancel triage-k3m9xq --reason "the wrong prompt"
    """
    asked = {"reason": reason, "step": step, "task": task}
    name = node_of(workspace).ask("POST", f"/v1/runs/{run}/cancel", asked)["run"]
    output.note(f"cancelled {task or step or name}")
