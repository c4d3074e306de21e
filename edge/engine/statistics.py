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

    def decoded(self, n_tokens: int, *, is_prefill: bool, seconds: float) -> None:
        """A call of `llama_decode` took so long."""
        kind = "prefill" if is_prefill else "decode"
        line = {"squares": n_tokens * n_tokens, "token_s": n_tokens * seconds}
        self.add(**{f"{kind}_{name}": x for name, x in {"tokens": n_tokens, "calls": 1, "s": seconds, **line}.items()})

    def ended(self, usage: Usage) -> None:
        """A request ended, having taken so much."""
        self.add(prompt_tokens=usage.tokens_in, cached_tokens=usage.tokens_cached, queue_s=usage.queue_ms / 1000)

    def read(self) -> Counts:
        return msgspec.convert(self._sums, Counts)
