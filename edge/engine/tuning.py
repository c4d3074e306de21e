"""How a context is made on this machine, and how fast one then was. Values only; no engine is loaded."""

from __future__ import annotations

from typing import Literal

from gx.core.message import Value

ROW_PROMPT_TOKENS, ROW_ANSWER_TOKENS = 128, 64
"""A row of a fleet, behind what all rows share: the work that ways to compute are compared by."""


class Tuning(Value, frozen=True, kw_only=True):
    """`None` leaves a value to the engine. `threads` is the most, `pass_tokens` what one pass over the weights takes.

    `cache` is the format of keys and values; only F16 keeps them as good as they are computed.
    """

    threads: int | None = None
    pass_tokens: int | None = None
    flash: bool | None = None
    cache: Literal["f16", "q8_0"] = "f16"


UNTUNED = Tuning()


class Speeds(Value, frozen=True, kw_only=True):
    """Tokens a second: of prompts, and of `slots` answers together."""

    prefill: float
    decode: float
    slots: int

    @property
    def row_s(self) -> float:
        """Seconds for one row of a fleet."""
        return ROW_PROMPT_TOKENS / self.prefill + ROW_ANSWER_TOKENS / self.decode
