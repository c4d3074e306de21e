"""What running attempts have written so far: previews from their signals, from which no result is decided.

Invariant: at most `MOST` attempts are kept, each with the end of its text; a later attempt of a task takes the place of
an earlier one. Signals may be dropped on their way, so a text may have gaps; the answer in the log has none. Where each
stands in its slot is known from the bench's last reading, and brought up to date by the tokens that came since.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from gx.core.message import Value
from gx.core.protocol import Measured, Signal, SlotNow
from gx.core.view import RunState

MOST = 1024
KEPT_CHARS = 64 * 1024


class Preview(Value, frozen=True, kw_only=True, omit_defaults=False):
    """A running attempt: the tokens that it has written, and, where it was asked for, its text so far.

    `slot` is None where it waits for one, began after the last reading, or runs elsewhere. `is_cut`: only the end of
    the text is here.
    """

    task: str
    attempt: int
    worker: str
    tokens_out: int = 0
    text: str = ""
    is_cut: bool = False
    slot: SlotNow | None = None


class RunningNow(Value, frozen=True, kw_only=True, omit_defaults=False):
    """What runs of a run."""

    run: str
    tasks: tuple[Preview, ...] = ()


class Previews:
    """Takes signals and readings as they come. `of` gives what runs now; `read` is the last reading, None before it."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, Preview] = OrderedDict()
        self.read: Measured | None = None
        self._slots: dict[str, SlotNow] = {}

    def take(self, signal: Signal | Measured) -> None:
        """Add what came; what an earlier attempt still says comes too late."""
        if isinstance(signal, Measured):
            self.read, self._slots = signal, {one.conversation: one for one in signal.sequences}
            return
        before = self._last.get(signal.task)
        if before is not None and before.attempt > signal.attempt:
            return
        self._last.pop(signal.task, None)
        is_same = before is not None and before.attempt == signal.attempt
        text = (before.text if before is not None and is_same else "") + signal.text
        self._last[signal.task] = Preview(
            task=signal.task,
            attempt=signal.attempt,
            worker="",
            tokens_out=signal.tokens_out,
            text=text[-KEPT_CHARS:],
            is_cut=len(text) > KEPT_CHARS or (before is not None and is_same and before.is_cut),
        )
        if len(self._last) > MOST:
            self._last.popitem(last=False)

    def of(self, run: RunState, task: str | None = None) -> RunningNow:
        """The leased tasks of a run, with the text of `task` alone."""
        found = []
        for leased in run.leased.values():
            last = self._last.get(leased.id)
            seen = last if last is not None and last.attempt == leased.attempt else None
            is_wanted = seen is not None and leased.id == task
            tokens_out = 0 if seen is None else seen.tokens_out
            found.append(
                Preview(
                    task=leased.id,
                    attempt=leased.attempt,
                    worker=leased.worker or "",
                    tokens_out=tokens_out,
                    text=seen.text if seen is not None and is_wanted else "",
                    is_cut=seen.is_cut if seen is not None and is_wanted else False,
                    slot=_since(self._slots.get(f"{leased.id} {leased.attempt}"), tokens_out),
                )
            )
        return RunningNow(run=run.id, tasks=tuple(found))


def _since(slot: SlotNow | None, tokens_out: int) -> SlotNow | None:
    """The slot as it is now that so many tokens are written."""
    if slot is None or tokens_out <= slot.tokens_out:
        return slot
    if slot.is_prefill:  # it was, and its pace says nothing of the decode
        return msgspec.structs.replace(
            slot, tokens=slot.prompt_tokens + tokens_out, tokens_out=tokens_out, is_prefill=False, tokens_per_s=None
        )
    return msgspec.structs.replace(slot, tokens=slot.tokens + tokens_out - slot.tokens_out, tokens_out=tokens_out)
