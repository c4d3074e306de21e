"""`gx schema`, `gx validate`, `gx init`: writing a recipe, before any of it runs.

What a recipe can be is for `gx.flow`; what a model's name means is for `edge`. Nothing that is there is overwritten
unless `--force` says so: one file in the way, and `gx init` writes none.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gx import output
from gx.core.errors import GxError, UsageError, WorkspaceError

if TYPE_CHECKING:
    from gx.core.recipe import Recipe
    from gx.settings import Settings

_INIT_HELP = """\
Write a recipe to start from, with its input, and make this folder a workspace.

What it writes runs as it is, on a model small enough for any machine. --from copies a recipe that comes with gx,
with its data.

\b
Examples:
\b
    gx init && gx run recipe.yaml
    gx init --from triage && gx run recipe.yaml --limit 5
"""

_VALIDATE_HELP = """\
Check recipes without running them: their grammar, references, templates, output schemas and models' names.

Every recipe is checked, and the exit code is 2 if one of them can't run. A model that is not on this machine is a
note, not an error.

Example: gx validate recipes/*.yaml
"""

INPUTS_FILE, LABELS_FILE = "inputs.jsonl", "labels.jsonl"

STARTER = """\
# A first recipe: sort reviews. Try it with: gx run recipe.yaml
# Kill it and run it again, and only the rest is done. What else can stand here: gx schema
version: 1
name: reviews

params:
  product: the tent                   # gx run recipe.yaml --set product="the stove"

models:
  small: smollm2                      # others: gx models list; or ./file.gguf, or hf:owner/repo/file.gguf

agents:
  reader:
    model: small
    persona: You sort customer reviews of {{ params.product }}.
    output:                           # a JSON Schema; every answer keeps to it
      type: object
      required: [sentiment, about]
      properties:
        sentiment: {enum: [good, mixed, bad]}
        about: {enum: [quality, price, delivery, other]}
    sampling: {max_tokens: 64}

inputs: inputs.jsonl                  # JSON lines, CSV, a folder of texts; -i FILE takes another, -i - stdin

steps:
  - id: sort
    for_each: inputs                  # a task for each row, which is `item` here
    agent: reader
    prompt: "Review: {{ item.text }}"
    retry: {limit: 2}

  # One answer from all results of a step: take the marks away, and add above: editor: {model: small}
  # - id: report
  #   reduce: sort
  #   agent: editor
  #   prompt: "Sum up in two sentences:\\n{% for r in items %}- {{ r.sentiment }}: {{ r.about }}\\n{% endfor %}"
"""

STARTER_ROWS = (
    "Stood through a night of hail without a drop inside. Worth every cent.",
    "It took three weeks to arrive, and nobody answered my mails.",
    "Light and quick to put up, but the zip broke on the second trip.",
    "Twice the price of the others, and no better.",
    "The colour is nicer than in the pictures.",
    "Poles bent in the first wind. I sent it back.",
)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("init", help=_INIT_HELP)(init)
    app.command("validate", help=_VALIDATE_HELP)(validate)
    app.command("schema")(schema)


def schema() -> None:
    """Print the JSON Schema of a recipe, for editors.

    Example: gx schema > recipe.schema.json

    Then begin a recipe with: # yaml-language-server: $schema=recipe.schema.json
    """
    from gx.flow.schema import recipe_schema

    output.write(json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n")


def validate(
    recipes: Annotated[list[Path], typer.Argument(metavar="RECIPE", help="Recipes, YAML files.", show_default=False)],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """The verb itself; its help text is _VALIDATE_HELP."""
    from gx import settings

    output.set_mode(quiet=quiet)
    found, worst = settings.load(), output.ExitCode.ok
    for path in recipes:
        try:
            output.note(f"{path}: ok: {_checked(path, found)}")
        except GxError as error:
            output.show_error(error)
            worst = output.ExitCode.usage
    raise typer.Exit(worst)


def init(
    file: Annotated[Path, typer.Argument(help="The recipe to write; its data goes beside it.")] = Path("recipe.yaml"),
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="NAME",
            help="A recipe that comes with gx: triage, digest, extract, second-opinion, ask-the-docs (without its "
            "documents), researcher, watchful.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """The verb itself; its help text is _INIT_HELP."""
    output.set_mode(quiet=quiet)
    if file.suffix not in (".yaml", ".yml"):
        raise UsageError(f"expected a .yaml file to write, got {file}", hint="gx init recipe.yaml")
    contents = _starter(file) if source is None else _copied(source, file, bundle())
    taken = [str(path) for path in contents if path.exists()]
    if taken and not force:
        more = ", …" if len(taken) > 5 else ""
        raise UsageError(
            f"there is already {', '.join(taken[:5])}{more}", hint="--force overwrites; or name another file or folder"
        )
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (file.parent / ".gx").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        message = f"{error.filename} can't be written: {error.strerror}"
        raise WorkspaceError(message, code="workspace.read_only") from None
    others = len(contents) - 1
    output.note(f"wrote {file} and {next(p for p in contents if p != file) if others == 1 else f'{others} files'}")
    place = f"cd {shlex.quote(str(file.parent))} && " if file.parent != Path() else ""
    output.note(f"next: {place}gx run {shlex.quote(file.name)}")
    for labels in (path.relative_to(file.parent) for path in contents if path.name == LABELS_FILE):
        output.note(f"then: gx eval {shlex.quote(file.name)} --labels {labels}")


def _checked(path: Path, settings: Settings) -> str:
    """The recipe in a few words, once it is known to be one. :raises GxError: at the first thing wrong."""
    from gx.flow.parse import plan_recipe, read_recipe, readable

    text = read_recipe(path)
    recipe = plan_recipe(text, None, file=readable(path)).recipe
    if recipe.rules:
        from gx.run.rulecheck import check_queries

        check_queries(recipe, text, file=readable(path))
    _check_models(path, recipe, settings)
    counts = {"step": recipe.steps, "agent": recipe.agents, "model": recipe.models, "param": recipe.params}
    return ", ".join(f"{len(of)} {name}{'s' if len(of) != 1 else ''}" for name, of in counts.items() if of)


def _check_models(path: Path, recipe: Recipe, settings: Settings) -> None:
    """:raises RecipeError: at a model that names nothing. One that is not here is noted."""
    from edge import models
    from gx.core.errors import ModelError
    from gx.flow.yamltree import read_yaml

    for name, model in recipe.models.items():
        try:
            found = models.resolve(
                model.source,
                base_dir=path.resolve().parent,
                models_dir=settings.models_dir,
                endpoint=settings.hub_endpoint,
            )
        except ModelError as error:
            place = read_yaml(path.read_text("utf-8-sig"), file=str(path)).at("models", name, "source")
            raise place.error(error.message, error.hint) from None
        if isinstance(found, models.Missing):
            missing = found.error()
            output.note(f"{path}: note: {missing.message}; {missing.hint}")


def _starter(file: Path) -> dict[Path, bytes]:
    rows = [json.dumps({"id": f"r{n}", "text": text}) for n, text in enumerate(STARTER_ROWS, start=1)]
    text = STARTER.replace("recipe.yaml", file.name)
    return {file: text.encode(), file.parent / INPUTS_FILE: ("\n".join(rows) + "\n").encode()}


def _copied(name: str, file: Path, folder: Path) -> dict[Path, bytes]:
    """A bundled recipe and its folder of inputs, by the place where they go. :raises UsageError: if there is none."""
    from gx.flow.packed import files_of
    from gx.flow.parse import load_recipe, read_recipe
    from gx.flow.source import suggest

    bundled = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if name not in bundled:
        hint = suggest(name, bundled, "recipes that come with gx")
        raise UsageError(f"--from: there is no recipe `{name}`", hint=hint)
    recipe = bundled[name]
    inputs = folder / Path(load_recipe(recipe).inputs or name).parts[0]
    data = [path for path in sorted(inputs.rglob("*")) if path.is_file()]
    data += [folder / name for name in files_of(read_recipe(recipe))]
    copies = {file.parent / path.relative_to(folder): path.read_bytes() for path in data}
    return {file: recipe.read_bytes()} | copies


def bundle() -> Path:
    """The recipes that come with gx: in the package where it was installed, else in the checkout beside it."""
    import gx

    package = Path(gx.__file__).resolve().parent
    return packed if (packed := package / "_recipes").is_dir() else package.parent / "recipes"
