"""One finding of `gx doctor`."""

from __future__ import annotations

from typing import Literal

from gx.core.message import Value


class Check(Value, frozen=True, kw_only=True):
    """What was looked at, and what came of it. `advice` says what to do; it is empty where there is nothing to do."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""
