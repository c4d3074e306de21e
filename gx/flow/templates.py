"""Templates of a recipe: Jinja2, sandboxed and strict. Data in, text out; nothing else can be reached from one.

An undefined name is an error. Objects and lists are written as JSON, so that a model can read `{{ item }}`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, wraps
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gx.core.errors import GxError
from gx.flow.withheld import Withheld, field, guard

MAX_OUTPUT_CHARS = 8_000_000
"""A rendered prompt longer than this is refused: no context holds a tenth of it."""
MAX_STEPS = 1_000_000
"""Rounds of loops and calls in one rendering: some eight characters of the longest prompt each."""
MAX_CPU_S = 3.0
"""What a rendering may take of a core; a million steps of the usual kind take one second."""
_STEPS_A_LOOK = 16
"""Steps between two looks at the clock: one alone may take a tenth of a second, with a text of `MAX_OUTPUT_CHARS`."""


_ERRORS = (jinja2.TemplateError, ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
_RENDERING_ERRORS = (*_ERRORS, RuntimeError, MemoryError)
"""What a template can make Python raise; RuntimeError is that of a macro that calls itself for ever."""
_HALF = re.compile("[\ud800-\udfff]")
_PADDING = frozenset(
    {"center", "expandtabs", "format", "format_map", "ljust", "replace", "rjust", "translate", "zfill"}
)


class TemplateFailure(GxError):
    """A template that can't be rendered for this item: which name is undefined, or what went wrong."""

    code = "template"


def _finalize(value: Any) -> Any:
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


class _Work:
    """What one rendering has done so far."""

    __slots__ = ("look_at", "steps", "until_s")

    def __init__(self) -> None:
        self.steps, self.look_at, self.until_s = 0, _STEPS_A_LOOK, 0.0

    def add(self, steps: int) -> None:
        """Count rounds of a loop, or a call. :raises TemplateFailure: if that is too much."""
        self.steps += steps
        if self.steps < self.look_at:
            return
        self.look_at = self.steps + _STEPS_A_LOOK
        now_s = time.thread_time()
        self.until_s = self.until_s or now_s + MAX_CPU_S
        if self.steps > MAX_STEPS or now_s > self.until_s:
            much = f"{MAX_STEPS:,} steps" if self.steps > MAX_STEPS else f"{MAX_CPU_S:g} s of computing"
            raise TemplateFailure(f"the template makes more work than {much}", code="template.too_long")


class _Context(Context):
    """The names of one rendering, and its work: macros and blocks share them."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.work = _Work()

    def derived(self, locals: dict[str, Any] | None = None) -> Context:
        made: Any = super().derived(locals)
        made.work = self.work
        return made  # type: ignore[no-any-return]


class Environment(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox, where `item.values` is the field of that name, and no loop or sum can eat the machine."""

    context_class = _Context
    intercepted_binops = frozenset({"*", "**", "%"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A field before a method of the same name."""
        if isinstance(obj, Withheld):
            return field(obj, attribute, lambda: self.undefined(obj={}, name=attribute))
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """A field by its name in brackets."""
        if isinstance(obj, Withheld):
            return field(obj, argument, lambda: self.undefined(obj={}, name=argument))
        return super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """No method that makes a text as long as it is told."""
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str) and attr in _PADDING)

    def _generate(self, source: nodes.Template, *args: Any, **named: Any) -> str:
        """Python's code for a template, whose loops go through `counted`."""
        for loop in source.find_all(nodes.For):
            counted = nodes.EnvironmentAttribute("counted", lineno=loop.lineno)
            items = [nodes.ContextReference(lineno=loop.lineno), loop.iter]
            loop.iter = nodes.Call(counted, items, [], None, None, lineno=loop.lineno)
        source.set_environment(self)
        return super()._generate(source, *args, **named)

    def counted(self, context: _Context, items: Iterable[Any]) -> Iterator[Any]:
        """The items, each of which is a step of the rendering's work; so many at a time are counted in advance."""
        work, ahead = context.work, 0
        for item in items:
            if not ahead:
                work.add(_STEPS_A_LOOK)
                ahead = _STEPS_A_LOOK
            ahead -= 1
            yield item
        work.steps -= ahead

    def call(self, context: _Context, obj: Any, /, *args: Any, **named: Any) -> Any:  # type: ignore[override]
        """A call is a step; what a recursive loop is called with, is a loop as well."""
        context.work.add(1)
        if isinstance(obj, LoopContext):
            args = tuple(self.counted(context, part) for part in args)
        return super().call(context, obj, *args, **named)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Numbers multiply and divide; texts and lists may be repeated within reason; there are no powers."""
        if operator == "*" and not (isinstance(left, int | float) and isinstance(right, int | float)):
            sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
            if hasattr(sized, "__len__") and isinstance(times, int) and len(sized) * times > MAX_OUTPUT_CHARS:
                raise SecurityError(f"a repetition of more than {MAX_OUTPUT_CHARS:,} is refused")
        elif operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"`{operator}` is not allowed here")
        return super().call_binop(context, operator, left, right)


ENVIRONMENT = Environment(
    undefined=jinja2.StrictUndefined, finalize=_finalize, autoescape=False, keep_trailing_newline=False
)
ENVIRONMENT.globals.clear()
for _unfit in ("random", "pprint", "center", "format", "indent", "batch", "slice", "wordwrap", "urlize", "xmlattr"):
    del ENVIRONMENT.filters[_unfit]


def _guarded(test: Any) -> Any:
    """The test, which reads what it is asked of: many look at no more than a value's type."""

    @wraps(test)
    def asked(*args: Any, **named: Any) -> Any:
        guard((*args, *named.values()))
        return test(*args, **named)

    return asked


for _name, _test in list(ENVIRONMENT.tests.items()):
    ENVIRONMENT.tests[_name] = _guarded(_test)
ENVIRONMENT.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)


@lru_cache(maxsize=512)
def _compiled(source: str) -> jinja2.Template:
    return ENVIRONMENT.from_string(source)


@lru_cache(maxsize=512)
def _expression(source: str) -> Callable[..., Any]:
    return ENVIRONMENT.compile_expression(bare(source), undefined_to_none=False)


def bare(expression: str) -> str:
    """The expression without the `{{ }}` that some people write around it."""
    text = expression.strip()
    if text.startswith("{{") and text.endswith("}}"):
        return text[2:-2].strip()
    return text


def render(source: str, names: Mapping[str, Any]) -> str:
    """The text of `source` with `names`. :raises TemplateFailure: naming what is undefined or wrong."""
    if "{" not in source:
        return source
    pieces: list[str] = []
    size = 0
    try:
        for piece in _compiled(source).generate(names):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_OUTPUT_CHARS:
                break
    except _RENDERING_ERRORS as error:
        raise _failure(error) from None
    if size > MAX_OUTPUT_CHARS:
        message = f"the rendered prompt has over {MAX_OUTPUT_CHARS:,} characters, and no more fit"
        raise TemplateFailure(message, code="template.too_long")
    text = "".join(pieces)
    if not text.isascii() and _HALF.search(text):
        raise TemplateFailure("the rendered prompt has half of a surrogate pair, which is no text")
    return text


def holds(expression: str, names: Mapping[str, Any]) -> bool:
    """Whether a `when` expression is true. :raises TemplateFailure: naming what is undefined or wrong."""
    try:
        value = _expression(expression)(**names)
        return bool(value)
    except _RENDERING_ERRORS as error:
        raise _failure(error) from None


def _failure(error: Exception) -> TemplateFailure:
    if isinstance(error, jinja2.UndefinedError):
        return TemplateFailure(f"the template uses something that this item lacks: {error.message}")
    return TemplateFailure(f"the template can't be rendered: {type(error).__name__}: {error}")


@lru_cache(maxsize=512)
def names_in(source: str, *, is_expression: bool = False) -> frozenset[str]:
    """The top-level names that a template or expression uses.

    :raises jinja2.TemplateSyntaxError: if it can't be parsed.
    """
    text = "{{ " + bare(source) + " }}" if is_expression else source
    return frozenset(meta.find_undeclared_variables(ENVIRONMENT.parse(text)))


@lru_cache(maxsize=512)
def members_in(source: str, owner: str, *, is_expression: bool = False) -> frozenset[str]:
    """What a template reads as `owner.x` or `owner["x"]`."""
    text = "{{ " + bare(source) + " }}" if is_expression else source
    found: set[str] = set()
    for node in ENVIRONMENT.parse(text).find_all((nodes.Getattr, nodes.Getitem)):
        if not isinstance(node, nodes.Getattr | nodes.Getitem):
            continue
        if isinstance(node.node, nodes.Name) and node.node.name == owner:
            if isinstance(node, nodes.Getattr):
                found.add(node.attr)
            elif isinstance(node.arg, nodes.Const):
                found.add(str(node.arg.value))
    return frozenset(found)
