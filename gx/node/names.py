"""Names that aren't UTF-8, as the file system has them, in JSON, which has no place for them.

Python shows such a byte as a lone surrogate (PEP 383). Here it travels as NUL and two hex digits: no path has a NUL.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from gx.node.client import Submission

_SURROGATE = re.compile("[\udc80-\udcff]")
_TOLD = re.compile("\0([0-9a-f]{2})")


def told(name: str) -> str:
    """A name as it travels."""
    return _SURROGATE.sub(lambda found: f"\0{ord(found[0]) - 0xDC00:02x}", name)


def meant(name: str) -> str:
    """The name that was told."""
    return _TOLD.sub(lambda found: chr(0xDC00 + int(found[1], 16)), name)


def as_told(asked: Submission) -> Submission:
    """A submission as it travels: its names may be no UTF-8."""
    return _renamed(asked, told)


def as_meant(asked: Submission) -> Submission:
    """The submission that was told."""
    return _renamed(asked, meant)


def _renamed(asked: Submission, rename: Callable[[str], str]) -> Submission:
    inputs = None if asked.inputs is None else rename(asked.inputs)
    folders = {"folder": rename(asked.folder), "recipe_folder": rename(asked.recipe_folder)}
    return msgspec.structs.replace(asked, inputs=inputs, recipe_file=rename(asked.recipe_file), **folders)
