"""A recipe and the files that it names as one text: what is checked, kept in the log, resumed, forked and replayed.

A recipe names a file where a persona stands: one line that ends in .yaml or .yml, without blanks unless it begins with
./ or ../, is the file's name, beside the recipe. `packed` is all that ever reads one. The packed text is the recipe as
it was typed, then each file under a line of its own, `--- # file: "./personas/careful.yaml"`. The invariant: whatever
reads that text sees the files as they were, and knows places in them by their own lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gx.flow.source import Node, suggest
from gx.flow.yamltree import read_yaml

MAX_BYTES = 1024 * 1024
"""Of a persona's file: more than any context holds."""
_MARK = re.compile(r'^--- # file: ("(?:[^"\\]|\\.)*")\r?\n', re.MULTILINE)
"""Begins a file. YAML ends whatever stands open at a line that begins with `---`, so it is never part of a text."""
_NAME = re.compile(r"(?:\.{0,2}/.*|~/.*|\S+)\.ya?ml")
_OTHER_FILE = re.compile(r"\.{1,2}/\S+")
_EXPRESSION = re.compile(r"\{\{.*?\}\}")
_WHAT = "a persona"


def packed(text: str, *, file: str, folder: Path) -> str:
    """The recipe's text with the files that it names, read from its `folder`; `file` is its name in errors.

    :raises RecipeError: if the text isn't YAML, or one of its files can't be read.
    """
    if ".yaml" not in text and ".yml" not in text:
        return text
    head, files = unpacked(text)
    missing = {str(node.value): node for node in _names(read_yaml(head, file=file)) if node.value not in files}
    for name, node in missing.items():
        text = text if text.endswith("\n") else text + "\n"
        text += f"--- # file: {json.dumps(name, ensure_ascii=False)}\n{_read(node, folder)}"
    return text


def unpacked(text: str) -> tuple[str, dict[str, str]]:
    """The recipe's own text, and those of its files by the names that it has for them."""
    head, *rest = _MARK.split(text)
    return head, {json.loads(name): content for name, content in zip(rest[::2], rest[1::2], strict=True)}


def read_tree(text: str, *, file: str) -> Node:
    """The tree of a packed recipe, in which the files stand in the place of their names.

    :raises RecipeError: if it isn't YAML, or a file that it names isn't in it.
    """
    head, files = unpacked(text)
    root = read_yaml(head, file=file)
    if not any(_names(root)):
        return root
    trees = {str(node.value): _tree(node, files, file) for node in _names(root)}
    agents = root.at("agents")
    planted = {
        name: replace(agent, value=agent.value | {"persona": trees[str(agent.at("persona").value)]})
        if _is_name(agent.at("persona"))
        else agent
        for name, agent in agents.value.items()
    }
    return replace(root, value=root.value | {"agents": replace(agents, value=planted)})


def files_of(text: str) -> list[str]:
    """The names of the files in a packed text, relative to the recipe's folder."""
    return list(unpacked(text)[1])


def _names(root: Node) -> Iterator[Node]:
    """Where the recipe names a file."""
    agents = root.at("agents")
    if agents is not root and agents.kind == "mapping":
        yield from (node for agent in agents.value.values() if _is_name(node := agent.at("persona")))


def _is_name(node: Node) -> bool:
    """Whether a persona is the name of a file. :raises RecipeError: if it can only be meant as one, and is none."""
    if node.kind != "text" or "\n" in node.value:
        return False
    text: str = node.value.strip()
    is_yaml = _NAME.fullmatch(_EXPRESSION.sub("x", text)) is not None
    as_text = "a persona that is a text and looks like a name is written `persona: {text: …}`"
    if is_yaml and "{" in text:
        raise node.error("expected the name of a persona's file, got one that is a template", as_text)
    if is_yaml and text.startswith(("/", "~")):
        raise node.error(f"expected a persona's file beside the recipe, got {text}", "begin its name with ./ or ../")
    if not is_yaml and _OTHER_FILE.fullmatch(text):
        raise node.error(f"expected the name of a persona's file to end in .yaml, got {text}", as_text)
    return is_yaml


def _tree(node: Node, files: dict[str, str], recipe: str) -> Node:
    """The tree of the file that is named at `node`."""
    if node.value not in files:
        hint = "`gx run` reads it; whoever sends a recipe's text sends its files with it"
        raise node.error(f"expected the file {node.value} to come with the recipe, got none", hint)
    name = str(Path(recipe).parent / str(node.value).strip())
    tree = read_yaml(files[node.value], file=name, what=_WHAT, hint="begin with `text: You are …`")
    if tree.kind != "mapping":
        raise tree.error(f"expected a persona (a mapping with `text`), got {tree}", "begin with `text: You are …`")
    return tree


def _read(node: Node, folder: Path) -> str:
    """The text of the file that is named at `node`. :raises RecipeError: there, if it can't be read."""
    name = str(node.value).strip()
    path = folder / name
    try:
        _check_within(node, path, folder)
        if path.is_dir():
            raise node.error(f"expected a persona in {name}, got a folder", "name the file in it")
        if path.exists() and not path.is_file():
            raise node.error(f"expected a persona in {name}, got something that is no file")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        beside = [str(Path(name).parent / found.name) for found in sorted(path.parent.glob("*.y*ml"))]
        hint = suggest(name.removeprefix("./"), beside, "files there")
        raise node.error(f"expected a persona in {name}, got no such file", hint) from None
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        reason = getattr(error, "strerror", None) or str(error)
        raise node.error(f"expected a persona in {name}, got a file that can't be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise node.error(f"expected a persona of at most {MAX_BYTES:,} bytes in {name}, got more")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"expected UTF-8 in {name}, got the byte 0x{content[error.start]:02x} at {error.start:,}"
        raise node.error(message) from None
    if _MARK.search(text):
        raise node.error(f"expected one persona in {name}, got several files in one", "leave out the lines with ---")
    return text


def _check_within(node: Node, path: Path, folder: Path) -> None:
    """A link may not lead anywhere else than where the recipe says: its folder, or above it as often as it says .."""
    ups = sum(part == ".." for part in Path(str(node.value).strip()).parts)
    root = folder.resolve()
    for _ in range(ups):
        root = root.parent
    if not path.resolve().is_relative_to(root):
        where = "write a name that leads there openly, or put the file beside the recipe"
        raise node.error(f"expected {node.value} to lie where it says, got a link that leads out of {root}", where)
