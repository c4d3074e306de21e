"""`gx answer`: what a run asks a person, and giving the answer."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gx import output
from gx.cli.place import WorkspaceOpt

if TYPE_CHECKING:
    from gx.node.client import OpenQuestion


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("answer")(answer)


def answer(
    run: Annotated[str, typer.Argument(help="A run, by its id or the start of it.", show_default=False)],
    choice: Annotated[
        str | None, typer.Argument(help="One of the question's choices; without it, what is asked.", show_default=False)
    ] = None,
    question: Annotated[
        str | None, typer.Option("--question", help="Which question, where there are several; else the oldest.")
    ] = None,
    as_json: Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or text on stdout.")] = None,
    workspace: WorkspaceOpt = None,
) -> None:
    """Answer what a run asks a person, or list what it asks. `stop` stops the run, any other choice lets it go on.

    Example: gx answer triage-k3x9ab continue
    """
    from gx.cli.place import node_of
    from gx.node.endpoints import OpenQuestions

    client = node_of(workspace)
    if choice is None:
        found = client.ask("GET", f"/v1/runs/{run}/questions", kind=OpenQuestions, timeout_s=None)
        _show(found.run, found.questions, found.paused_steps, as_json=as_json)
        return
    body = {"choice": choice, "question": question}
    name = client.ask("POST", f"/v1/runs/{run}/answer", body, timeout_s=None)["run"]
    output.note(f"answered {choice} to {name}; if it isn't live, go on with: gx resume {name}")


def _show(run: str, questions: tuple[OpenQuestion, ...], paused: tuple[str, ...], *, as_json: bool | None) -> None:
    if output.wants_json(as_json):
        rows: list[dict[str, Any]] = [{name: getattr(q, name) for name in q.__struct_fields__} for q in questions]
        output.emit([{"run": run} | row for row in rows], as_json=True)
    else:
        for one in questions:
            choices = " | ".join(shlex.quote(choice) for choice in one.choices)
            text = f"{one.question}: {one.text}\n  gx answer {run} {choices}\n"
            output.write(text)
    if paused:
        output.note(f"paused: step {', '.join(paused)}; let it go on with: gx resume {run}")
    elif not questions:
        output.note(f"{run} asks nothing")
