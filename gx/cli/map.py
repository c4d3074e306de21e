"""`gx map`: one prompt over rows on stdin, without a recipe file.

What is typed becomes a recipe in memory, which then goes the way of every other: the log, reuse by key, exit codes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gx import output
from gx.cli import inline
from gx.cli.place import WorkspaceOpt
from gx.cli.printing import RawOpt, SelectOpt, TeeOpt, style_of
from gx.cli.run import FormatOpt, NotifyOpt, carry_out
from gx.core.errors import UsageError

HELP = """\
Ask a model the same of every row on stdin: one JSON line a row on stdout, or with --raw the bare answer.

The prompt is a template over the row's fields: {{ text }} is a plain line, {{ name }} a column of a CSV or a field of
JSON lines, {{ item["first name"] }} one whose name has a space. It runs as any recipe does: what is finished is in the
log, and equal rows are computed once.

\b
Examples:
    git log --format=%s -20 | gx map 'Sort this commit: {{ text }}' --choice fix,feature,other --raw
    gx map 'Sum up in five words: {{ text }}' -i mails.csv --raw --ordered
    cat names.jsonl | gx map 'Greet {{ name }} in {{ language }}.' --select .id --select .output --raw
"""
NAME = "map"

ModelOpt = Annotated[
    str,
    typer.Option("--model", "-m", envvar="GX_MODEL", help="A catalogue name, ./file.gguf, hf:… or https://…#sha256=…"),
]
SystemOpt = Annotated[str, typer.Option("--system", help="What the model is told to be, before the prompt.")]
MaxTokensOpt = Annotated[int | None, typer.Option("--max-tokens", min=1, help="The most tokens of an answer (512).")]
TemperatureOpt = Annotated[
    float | None, typer.Option(min=0, max=2, help="0 takes the likeliest token each time (the default).")
]
SeedOpt = Annotated[int | None, typer.Option(min=0, max=2**32 - 2, help="Equal seeds draw equal tokens (0).")]
SchemaOpt = Annotated[
    Path | None, typer.Option("--schema", metavar="FILE", help="A JSON Schema that every answer keeps to.")
]
GrammarOpt = Annotated[
    Path | None,
    typer.Option("--grammar", metavar="FILE", help="A grammar, in Lark or GBNF, that every answer is a text of."),
]
ChoiceOpt = Annotated[
    list[str] | None, typer.Option("--choice", metavar="A,B,…", help="The only answers there are; a comma between.")
]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("map", help=HELP)(map_rows)


def map_rows(
    prompt: Annotated[str, typer.Argument(help="A template over the row's fields.", show_default=False)],
    model: ModelOpt = inline.MODEL,
    inputs: Annotated[str, typer.Option("--inputs", "-i", help="A file, folder or glob; - is stdin.")] = "-",
    fmt: FormatOpt = None,
    schema: SchemaOpt = None,
    grammar: GrammarOpt = None,
    choice: ChoiceOpt = None,
    system: SystemOpt = "",
    max_tokens: MaxTokensOpt = None,
    temperature: TemperatureOpt = None,
    seed: SeedOpt = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows.")] = None,
    name: Annotated[str | None, typer.Option(help="A name for the run, by which stdin can be resumed.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute everything anew, whatever the log knows.")] = False,
    deadline: Annotated[str | None, typer.Option(help="Stop after this long (90s, 30m, 2h) and exit 5.")] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Stop after this many tokens and exit 4.")] = None,
    ordered: Annotated[bool, typer.Option("--ordered", help="Print records in the order of the rows.")] = False,
    with_input: Annotated[bool, typer.Option("--with-input", help="Put the row's own fields into its record.")] = False,
    select: SelectOpt = None,
    raw: RawOpt = False,
    tee: TeeOpt = None,
    notify: NotifyOpt = None,
    as_json: Annotated[bool | None, typer.Option("--json/--plain", help="JSON lines or a table on stdout.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress.")] = False,
    workspace: WorkspaceOpt = None,
) -> None:
    """The verb itself; its help text is HELP."""
    from gx import settings
    from gx.node.workspace import Workspace

    output.set_mode(as_json=as_json, quiet=quiet)
    style = style_of(with_input=with_input, select=select, raw=raw, tee=tee)
    if inputs == "-":
        inline.require_piped("rows", "echo 'It broke.' | gx map 'Sort this: {{ text }}'")
    shape = inline.schema_of(schema, choice)
    text = inline.recipe(
        NAME,
        model,
        step={"for_each": "inputs", "prompt": over_fields(prompt)},
        system=system,
        output=shape,
        grammar=inline.grammar_of(grammar, shape),
        sampling={"max_tokens": max_tokens, "temperature": temperature, "seed": seed},
    )
    asked = inline.submission(
        text, NAME, inputs=inputs, fmt=fmt, limit=limit, run_name=name, fresh=fresh, deadline=deadline, budget=budget,
        notify=notify,
    )  # fmt: skip
    found = settings.load(workspace=workspace)
    carry_out(asked, found, Workspace.find(found.workspace), ordered=ordered, style=style)


def over_fields(prompt: str) -> str:
    """The prompt as a recipe has it, where a field of the row is `item.field`: each free name is set to that.

    :raises UsageError: if it is no template, or says nothing of the row: every row would be asked the same.
    """
    import jinja2

    from gx.flow.templates import ENVIRONMENT, names_in

    try:
        names = names_in(prompt)
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(f"the prompt is no template: {error.message}", hint="{{ text }} is the row's text") from None
    except RecursionError:
        raise UsageError("expected a prompt that can be read as a template, got one nested too deeply") from None
    fields = sorted(names - _OWN - set(ENVIRONMENT.globals))
    if not fields and not names & _OF_THE_ROW:
        raise UsageError(
            "the prompt says nothing of the row", hint="write {{ text }}, or {{ name }} for a field `name`"
        )
    return "".join(f"{{% set {field} = item.{field} %}}" for field in fields) + prompt


_OF_THE_ROW = frozenset({"item", "input", "id", "index"})
_OWN = _OF_THE_ROW | {"params", "steps", "matrix"}
"""Names that a template has without the row's fields."""
