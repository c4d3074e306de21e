"""The lines of the lists: a failure, a decision, a question, an event, a run. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from gx.core.event import QuestionAsked
from gx.core.inert import inert_line
from gx.tui.causes import Cause
from gx.tui.chart import short
from gx.tui.draw import duration, shortened
from gx.tui.glyphs import Glyphs
from gx.tui.lines import Line
from gx.tui.model import Decision
from gx.tui.overview import RunRow
from gx.tui.themes import Paint

_TOLD = ("type", "run", "task")
_LONGEST = 400
_RUN_CELLS = 22
"""For a run's id, which has its recipe's name in it; twice as much on a roomy screen."""
_ROOMY_CELLS = 150
_SET_IN = 20
"""Cells: the time and the kind of a decision."""


def clock(at_s: float) -> str:
    """An instant as the time of its day in UTC."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%H:%M:%S")


def cause(one: Cause, paint: Paint) -> Text:
    text = Text.assemble((f"{one.failed:>7,} ", paint["error"]), (f"{one.code:<14} ", paint["bold"]))
    text.append(inert_line(one.message))
    if one.attempts > one.failed:
        text.append(f"  ({one.attempts:,} attempts)", paint["muted"])
    return text


def decision(one: Decision, paint: Paint) -> Text:
    text = Text.assemble((f"{clock(one.at_s)} ", paint["muted"]), (f"{_kind(one.kind):<10} ", paint["title"]))
    return text.append(inert_line(one.text))


def wrapped(text: Text, width: int, console: Console) -> list[Text]:
    """A line over as many as it takes; those behind the first are set in, below what was decided."""
    if text.cell_len <= width:
        return [text]
    first = text.wrap(console, max(_SET_IN + 10, width))[0]
    rest = text.plain[len(first.plain) :]
    start = len(text.plain) - len(rest.lstrip())  # a word that was cut in two goes on where it was cut
    below = text[start:].wrap(console, max(10, width - _SET_IN))
    return [first, *(Text(" " * _SET_IN).append_text(line) for line in below)]


def question(one: QuestionAsked, paint: Paint) -> Text:
    choices = " | ".join(map(inert_line, one.choices))
    return Text.assemble(
        ("? ", paint["warning"]), (inert_line(one.text), paint["bold"]), (f"   {choices}", paint["accent"])
    )


def event(line: Line, paint: Paint) -> Text:
    text = Text.assemble((f"{line.seq:>8} {line.time[11:23]} ", paint["muted"]), (f"{line.type:<18} ", paint["title"]))
    text.append(f"{(line.task or '')[:12]:<12} ", paint["muted"])
    return text.append(inert_line(_said(line.raw)))


def event_whole(line: Line) -> str:
    """All that an event says, as JSON over several lines."""
    try:
        return msgspec.json.format(line.raw, indent=2).decode()
    except msgspec.DecodeError:
        return line.raw.decode("utf-8", "replace")


def _said(raw: bytes) -> str:
    """What an event says beyond its type, run and task, which stand before it."""
    try:
        body = msgspec.json.decode(raw)["data"]
    except (msgspec.DecodeError, KeyError, RecursionError):
        return raw.decode("utf-8", "replace")
    words = (f"{name}={_short(value)}" for name, value in body.items() if name not in _TOLD)
    return "  ".join(words)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    is_digest = len(text) == 64 and text.isalnum()
    return text[:12] if is_digest else text[:_LONGEST]


def run(row: RunRow, paint: Paint, glyphs: Glyphs, *, width: int, is_live: bool, is_shown: bool) -> Text:
    mark = "*" if is_shown else " "
    room = _RUN_CELLS if width < _ROOMY_CELLS else 2 * _RUN_CELLS
    name = shortened(row.run, room, glyphs)
    text = Text.assemble((f"{mark} ", paint["accent"]), (f"{name:<{room}} ", paint["bold"]))
    status = row.status if is_live or row.status != "running" else "left"
    text.append(f"{status:<12} ", paint["accent" if is_live else "foreground"])
    text.append(f"{row.done:>9,}/{row.tasks:<8,} ")
    text.append(f"{row.failed:>6,} failed " if row.failed else " " * 14, paint["error"])
    if width > 90:
        text.append(f"{short(row.tokens_in + row.tokens_out):>6} tokens  {duration(row.until_s - row.began_s):>12}  ")
        text.append(datetime.fromtimestamp(row.began_s, UTC).strftime("%Y-%m-%d %H:%M"), paint["muted"])
    return text


def _kind(kind: str) -> str:
    return kind.partition(".")[0]
