"""The names of orders in what somebody says: cut, so that whoever makes tokens of a prompt reads letters there.

Where a text spells a token that the model takes for an order, such as the end of a turn, it could end its turn and
begin another one in somebody else's name. So that name is cut in two by `CUT`, and what is before a cut is made tokens
of apart from what is behind it.

Some templates take something out of what was said, such as `/think`, and so would join what was before it and behind it
to a name. A text that could become one in that way is cut wherever a name may begin.
"""

from __future__ import annotations

import re
from collections.abc import Collection

CUT = "\ufdd0"
"""A noncharacter, which no text is to hold (https://www.unicode.org/faq/private_use.html#noncharacters)."""
MARK = re.compile(r"<[^<>\[\]\s]{1,64}>|\[[^<>\[\]\s]{1,64}\]")
"""What names of orders look like, and what is looked at in a text; no mark is a part of another one."""
_TAKEN_OUT = re.compile(r"""replace\(\s*(['"])((?:\\.|(?!\1)[^\\])+)\1\s*,\s*(?:''|"")""")
_ESCAPE, _ESCAPED = re.compile(r"\\(.)"), {"n": "\n", "t": "\t", "r": "\r"}
MOST_PASSES = 3
"""How often what is joined is looked at again: a text that goes on joining was made for that."""


def taken_out(template: str) -> set[str]:
    """What a template takes out of texts, as far as it is written there."""
    written = (found[2] for found in _TAKEN_OUT.finditer(template))
    return {_ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), text) for text in written}


class Orders:
    """Names that are to be cut. `removed` is what the template may take out of a text.

    Marks are looked up, since a vocabulary may have thousands; the others are few.
    """

    def __init__(self, names: Collection[str], removed: Collection[str] = ()) -> None:
        self._marks = {name for name in names if MARK.fullmatch(name)}
        self._rest = _any_of({name for name in names if name not in self._marks and len(name) > 1})
        self._removed = _any_of(removed)
        first = {"<", "[", *(name[0] for name in names if name not in self._marks and len(name) > 1)}
        self._beginning = re.compile(rf"(?:{_any_of(first).pattern})(?!{CUT})")

    def cut(self, text: str) -> str:
        """The text with every name in it cut, and every name that could be made of it."""
        text = text.replace(CUT, "")
        cut = left = self._cut(text)
        for _ in range(MOST_PASSES):
            shorter = self._removed.sub("", left)
            if shorter == left:
                return cut
            left = shorter
            if self._cut(left) != left:
                break
        return self._beginning.sub(lambda found: found[0] + CUT, cut)

    def _cut(self, text: str) -> str:
        text = self._rest.sub(lambda found: _halved(found[0]), text)
        return MARK.sub(lambda found: _halved(found[0]) if found[0] in self._marks else found[0], text)


def _any_of(names: Collection[str]) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _halved(name: str) -> str:
    return name[0] + CUT + name[1:]
