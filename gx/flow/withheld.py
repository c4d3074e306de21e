"""Values from which what is private was left out, so that a template can be rendered without it.

A prompt may travel if it comes out the same where nothing private is there. So no filter, macro, loop or assignment of
a template can launder anything: what it could hide isn't in its reach. A `Withheld` stands where a private value would,
and holds none of it; whatever is done with it raises `PrivateRead`, which names what was read.

When in doubt, private: to ask what type a withheld value has, or to go through the fields of a row, is to read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

_METHODS = frozenset(dir(dict))
"""What a template may also mean by `item.x`, where a mapping has no field of that name: all of the mapping."""
_OPERATIONS = (
    *("str", "format", "bytes", "bool", "len", "length_hint", "iter", "next", "reversed", "contains", "getitem"),
    *("call", "hash", "eq", "ne", "lt", "le", "gt", "ge", "int", "float", "complex", "index", "html"),
    *("round", "trunc", "floor", "ceil", "abs", "neg", "pos", "invert"),
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift"),
    *("radd", "rsub", "rmul", "rmatmul", "rtruediv", "rfloordiv", "rmod", "rdivmod", "rpow", "rlshift", "rrshift"),
    *("and", "or", "xor", "rand", "ror", "rxor"),
)
"""All that Python, and Jinja2 on its behalf, can do with a value, by the names of the methods: `__str__` and so on."""


class PrivateRead(Exception):
    """Something private was read: `path` is its name, such as `item.email`."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is private")
        self.path = path


class Withheld:
    """What stands for a private value, or one with private parts: its `shown` fields can be read, and nothing else.

    A field that isn't there is undefined where it isn't private by its name; the value's own are, unless somebody says
    which.
    """

    __slots__ = ("_is_private", "_path", "_shown")

    def __init__(
        self, path: str, shown: Mapping[str, Any] | None = None, is_private: Callable[[str], bool] = lambda name: True
    ) -> None:
        self._path, self._shown, self._is_private = path, dict(shown or {}), is_private

    def __getattr__(self, name: str) -> NoReturn:
        raise PrivateRead(self._path)

    def __repr__(self) -> str:
        return f"<withheld {self._path}>"


def _refuse(value: Withheld, *args: object, **named: object) -> NoReturn:
    raise PrivateRead(value._path)


for _operation in _OPERATIONS:
    setattr(Withheld, f"__{_operation}__", _refuse)


def field(value: Withheld, name: object, undefined: Callable[[], Any]) -> Any:
    """What a template has by `value.name` or `value["name"]`. :raises PrivateRead: unless it may be known."""
    if not isinstance(name, str) or (name not in value._shown and name in _METHODS):
        raise PrivateRead(value._path)
    if name in value._shown:
        return value._shown[name]
    if value._is_private(name):
        raise PrivateRead(f"{value._path}.{name}")
    return undefined()


def guard(values: tuple[object, ...]) -> None:
    """Let all values pass but withheld ones. :raises PrivateRead: if one is."""
    for value in values:
        if isinstance(value, Withheld):
            raise PrivateRead(value._path)


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """`change(value)`; a withheld value has its shown fields changed so."""
    if isinstance(value, Withheld):
        return Withheld(value._path, change(value._shown), value._is_private)
    return change(value)


def row_without(row: Mapping[str, Any], private: frozenset[str], path: str) -> Withheld:
    """A row without the fields that the names in `private` say, at any depth.

    One that this row lacks is as private as one that it has: that it is missing would tell something.
    """
    shown = {name: _part(part, private, f"{path}.{name}") for name, part in row.items() if name not in private}
    return Withheld(path, shown, private.__contains__)


def _part(value: Any, private: frozenset[str], path: str) -> Any:
    if isinstance(value, dict) and named_in(value, private):
        return row_without(value, private, path)
    return [_part(part, private, path) for part in value] if isinstance(value, list) else value


def result_without(result: Any, share: tuple[str, ...], path: str) -> Withheld:
    """A result of which no more may be known than its fields in `share`; nothing of one that has no fields."""
    if not isinstance(result, dict):
        return Withheld(path)
    shared = frozenset(share)
    return Withheld(path, {name: result[name] for name in share if name in result}, lambda name: name not in shared)


def named_in(value: Any, private: frozenset[str]) -> str:
    """The first of the `private` names that a mapping within `value` has, at any depth; empty if none has one."""
    if isinstance(value, dict):
        found = next((name for name in value if name in private), "")
        return found or next(filter(None, (named_in(part, private) for part in value.values())), "")
    return next(filter(None, (named_in(part, private) for part in value)), "") if isinstance(value, list) else ""
