"""What the engine has done: tokens, calls and seconds, added up by the engine's thread and read by anyone."""

from __future__ import annotations

import msgspec

from gx.core.message import Counts, Usage


class Statistics:
    """The sums. One thread adds; a reading may be a call behind."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = dict.fromkeys(Counts.__struct_fields__, 0)

    def add(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self._sums[name] += amount

    def decoded(self, n_tokens: int, *, is_prompt: bool, seconds: float) -> None:
        """A call of `llama_decode` took so long."""
        kind = "prefill" if is_prompt else "decode"
        self.add(**{f"{kind}_tokens": n_tokens, f"{kind}_calls": 1, f"{kind}_s": seconds})

    def ended(self, usage: Usage) -> None:
        """A request ended, having taken so much."""
        self.add(prompt_tokens=usage.tokens_in, cached_tokens=usage.tokens_cached, queue_s=usage.queue_ms / 1000)

    def read(self) -> Counts:
        return msgspec.convert(self._sums, Counts)
