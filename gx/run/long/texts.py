"""The texts that a prompt is made from: found among its values, and put back with parts left out. Pure.

A text is known by its place, and replaced wherever it stands: a row is both `item` and `input`. What is withheld stays
so, and its shown fields are replaced too, so that a prompt without what is private is shortened alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from gx.core.errors import GxError
from gx.core.event import Kept, Ref
from gx.flow.withheld import Withheld, changed

Place = tuple[str | int, ...]
"""Names and numbers that lead to a value: ("item", "text") or ("items", 0)."""

_SOURCES = ("item", "input", "items", "steps", "params")
"""The names of a prompt whose texts may be cut."""
_ROW = ("item", "input")


def texts(names: Mapping[str, Any], least: int, field: str | None = None) -> list[tuple[Place, str]]:
    """The texts of at least `least` characters among the values, the longest first, each once.

    With a `field`, only the one of that name: a place such as "steps.read.text", or a field of the row.
    """
    found: dict[str, Place] = {}
    for place, text in _leaves({name: names[name] for name in _SOURCES if name in names}, ()):
        if len(text) >= least and (field is None or _is_named(place, field)):
            found.setdefault(text, place)
    return sorted(((place, text) for text, place in found.items()), key=lambda one: (-len(one[1]), _ordered(one[0])))


def swaps(names: Mapping[str, Any], kept: Sequence[Kept], read: Callable[[Sequence[Ref]], list[Any]]) -> dict[str, str]:
    """What stands in the prompt for each of the texts that were cut, by the text as it is; `read` gives notes.

    :raises GxError: if a text isn't where it was.
    """
    found = {}
    for one in kept:
        text = at(names, one.field)
        if not isinstance(text, str) or any(stop > len(text) for _, stop in one.spans):
            raise GxError(f"the text that was cut, {named(one.field)}, is not there any more", code="context")
        found[text] = joined(map(str, read(one.notes))) if one.notes else shown(text, one)
    return found


def replaced(value: Any, by: Mapping[str, str]) -> Any:
    """The value with these texts replaced, at any depth."""
    if isinstance(value, str):
        return by.get(value, value)
    if isinstance(value, Withheld):
        return changed(value, lambda known: replaced(known, by))
    if isinstance(value, dict):
        return {key: replaced(part, by) for key, part in value.items()}
    return [replaced(part, by) for part in value] if isinstance(value, list) else value


def shown(text: str, kept: Kept) -> str:
    """The parts of a text that are kept, in order, with a mark wherever some are left out."""
    made = [_mark(kept.left_out[0], kept.of)]
    for (start, stop), n_out in zip(kept.spans, kept.left_out[1:], strict=True):
        made += [text[start:stop], _mark(n_out, kept.of)]
    return "".join(made).strip("\n")


def joined(notes: Iterable[str]) -> str:
    """The notes on a text, as they stand in its place."""
    return "\n\n".join(note.strip() for note in notes)


def kept_of(place: Place, spans: Sequence[tuple[int, int]], chosen: set[int]) -> Kept:
    """What is kept of a text that was cut into `spans`: those of the `chosen` numbers."""
    made: list[tuple[int, int]] = []
    left_out = [0]
    for number, (start, stop) in enumerate(spans):
        if number not in chosen:
            left_out[-1] += 1
        elif made and not left_out[-1]:
            made[-1] = (made[-1][0], stop)
        else:
            made.append((start, stop))
            left_out.append(0)
    return Kept(field=place, spans=tuple(made), left_out=tuple(left_out), of=len(spans))


def at(names: Mapping[str, Any], place: Place) -> Any:
    """The value at a place; `None` where there is none."""
    value: Any = names
    for part in place:
        try:
            value = value[part]
        except (LookupError, TypeError):
            return None
    return value


def named(place: Place) -> str:
    """A place as a template names it: `item.text`, `items[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _mark(left_out: int, of: int) -> str:
    return f"\n[… {left_out:,} of {of:,} parts left out …]\n" if left_out else ""


def _leaves(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, (*place, key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _leaves(part, (*place, number))


def _is_named(place: Place, field: str) -> bool:
    name = named(place)
    return name == field or (place[0] in _ROW and name == f"{place[0]}.{field}")


def _ordered(place: Place) -> tuple[str, ...]:
    return tuple(str(part) for part in place)
