"""Where a JSON text has got to, as far as its numbers are concerned, and which ones are too large for its readers.

A number of 10³⁰⁹ and more is none in double precision: some readers refuse it, and others make it infinite. Readers of
whole numbers have limits too: Python's is 4,300 digits. JSON itself has none (RFC 8259, section 6), and neither has
llguidance, whose bounds moreover leave the exponent out and end at 10¹⁹. So numbers are followed here, beside the
grammar. It knows JSON's strings and numbers; it knows no schema and no tokens.

Invariant: a number that isn't too large can be ended right there, or by one digit more, and still isn't.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

MOST_DIGITS = 308
"""Digits of a number's whole part, with what its exponent adds to them. 10³⁰⁸ is the last power of ten in a double."""

Part = Literal["", "text", "escape", "whole", "fraction", "exponent"]


class Place(NamedTuple):
    """The end of a JSON text so far: the `part` that it stands in, and of a number its `digits` and its exponent.

    `is_too_large` is said of a number in the bytes that came last.
    """

    part: Part = ""
    digits: int = 0
    exponent: int = 0
    is_negative: bool = False
    is_too_large: bool = False


START = Place()


def after(place: Place, piece: bytes) -> Place:
    """Where the text has got to after some more bytes."""
    if place.part == "text" and not (b'"' in piece or b"\\" in piece):
        return Place("text")
    is_too_large = False
    for byte in piece:
        place = _next(place, chr(byte))
        is_too_large |= place.digits + (0 if place.is_negative else place.exponent) > MOST_DIGITS
    return place._replace(is_too_large=is_too_large)


def _next(place: Place, char: str) -> Place:
    part = place.part
    if part == "escape":
        return Place("text")
    if part == "text":
        return START if char == '"' else Place("escape") if char == "\\" else place
    if char == '"':
        return Place("text")
    if char in "0123456789":
        if part == "exponent":
            return place._replace(exponent=10 * place.exponent + int(char))
        return place if part == "fraction" else Place("whole", place.digits + 1)
    if part in ("whole", "fraction", "exponent") and char in ".eE+-":
        is_exponent = char != "."
        return place._replace(part="exponent" if is_exponent else "fraction", is_negative=char == "-")
    return START
