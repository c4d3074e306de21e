"""Source code as it stands, a section at each function and class: by its grammar in Python, by its look elsewhere."""

from __future__ import annotations

import ast
import re
import warnings

from edge.knowledge.document import Draft
from edge.knowledge.readers.plain import decode, lines_of

_WORDS = (
    "class|struct|enum|union|interface|trait|impl|protocol|extension|module|namespace|object|record|def|fn|func|fun"
    "|function|sub|procedure|type|macro_rules!"
)
_DEFINED = re.compile(
    rf"(?:[a-z]+(?:\([\w:]*\))?\s+){{0,4}}?(?:{_WORDS})\s+(?:\([^)]*\)\s*)?([A-Za-z_$][\w$]*(?:(?:::|\.)[\w$]+)*)"
)
_C_FUNCTION = re.compile(r"(?:[A-Za-z_][\w:<>,]*[\s*&]+){1,5}([A-Za-z_~][\w:~]*)\s*\([^;]*$")
_NO_FUNCTION = frozenset({"if", "for", "while", "switch", "return", "else", "catch"})


def read_python(raw: bytes, draft: Draft) -> None:
    """Python: a section for each function, class and method of the module. Broken code goes by its look."""
    text = decode(raw)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        _write(text, _by_look(text), draft)
        return
    marks: list[tuple[int, int, str]] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            marks.append((_first_line(node), 1, node.name))
            inner = node.body if isinstance(node, ast.ClassDef) else []
            marks += [
                (_first_line(method), 2, method.name)
                for method in inner
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
        elif marks:
            marks.append((node.lineno, 1, ""))
    _write(text, marks, draft)


def read_code(raw: bytes, draft: Draft) -> None:
    """Any other language: a section where a line begins that looks like a definition and isn't indented."""
    text = decode(raw)
    _write(text, _by_look(text), draft)


def _by_look(text: str) -> list[tuple[int, int, str]]:
    marks = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or not (line[0].isalpha() or line[0] == "_") or len(line) > 400:
            continue
        found = _DEFINED.match(line) or _C_FUNCTION.match(line)
        if found is not None and found[1] not in _NO_FUNCTION:
            marks.append((number, 1, found[1]))
    return marks


def _first_line(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _write(text: str, marks: list[tuple[int, int, str]], draft: Draft) -> None:
    lines = lines_of(text)
    done = 0
    for line, level, name in marks:
        draft.add("".join(lines[done : line - 1]))
        draft.head(level, name)
        done = max(done, line - 1)
    draft.add("".join(lines[done:]))
    draft.title = ""  # a module is called by its file, not by its first function
