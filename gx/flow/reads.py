"""Which fields a template reads, by its text alone: `item.text`, `steps.triage.summary`, `items.score`.

It errs on the side of more: what is passed to a filter or a macro, assigned, or asked for by a computed name is read
whole, and both branches of an `if` are read. Names of fields come out, never what is in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from jinja2 import nodes

from gx.flow.templates import ENVIRONMENT, bare

_ROOTS = frozenset({"item", "input", "items", "steps", "params", "matrix", "index", "id", "memories", "answers"})
Loops = Mapping[str, str]
"""The targets of the loops around a place, each with the path of what is gone through."""


@lru_cache(maxsize=512)
def fields_in(source: str, *, is_expression: bool = False) -> frozenset[str]:
    """The paths that a template or expression may read; one that is the start of another stands for all of it.

    :raises jinja2.TemplateSyntaxError: if it can't be parsed.
    """
    tree = ENVIRONMENT.parse("{{ " + bare(source) + " }}" if is_expression else source)
    return frozenset(path for path in _read(tree, {}) if path.partition(".")[0] in _ROOTS)


def _read(node: nodes.Node, loops: Loops) -> Iterator[str]:
    if isinstance(node, nodes.For):
        yield from _loop(node, loops)
    elif isinstance(node, nodes.Name) and node.ctx != "load":
        return
    elif (path := _path(node, loops)) is not None:
        yield path
        yield from _computed(node, loops)
    else:
        for child in _children(node):
            yield from _read(child, loops)


def _loop(node: nodes.For, loops: Loops) -> Iterator[str]:
    """What a loop reads: of what it goes through, only what its body takes of each; all of it, where it takes none."""
    path = _path(node.iter, loops)
    if path is None or not isinstance(node.target, nodes.Name):
        for child in node.iter_child_nodes(exclude=("target",)):
            yield from _read(child, loops)
        return
    yield from _computed(node.iter, loops)
    inner = {**loops, node.target.name: path}
    taken = [found for child in (*node.body, *((node.test,) if node.test else ())) for found in _read(child, inner)]
    yield from taken
    if not any(found == path or found.startswith(f"{path}.") for found in taken):
        yield path
    for child in node.else_:
        yield from _read(child, loops)


def _path(node: nodes.Node, loops: Loops) -> str | None:
    """The path that a chain of names says; `None` if it is another kind of expression."""
    if isinstance(node, nodes.Name):
        return loops.get(node.name, node.name)
    if isinstance(node, nodes.Getattr | nodes.Getitem):
        owner = _path(node.node, loops)
        name = node.attr if isinstance(node, nodes.Getattr) else _constant(node.arg)
        return owner if owner is None or not name else f"{owner}.{name}"
    return None


def _constant(arg: nodes.Node) -> str:
    return arg.value if isinstance(arg, nodes.Const) and isinstance(arg.value, str) else ""


def _computed(node: nodes.Node, loops: Loops) -> Iterator[str]:
    """What is read to say which part of a chain is meant."""
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        if isinstance(node, nodes.Getitem):
            yield from _read(node.arg, loops)
        node = node.node


def _children(node: nodes.Node) -> Iterator[nodes.Node]:
    """The parts of a node; a method stands for the value that has it: `item.get("x")` reads `item`."""
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
        yield node.node.node
        yield from node.iter_child_nodes(exclude=("node",))
    else:
        yield from node.iter_child_nodes()
