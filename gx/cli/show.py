"""What is known of a run or a task, as text for a person. Content that was erased is "(erased)"."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from gx.core.figures import Figures


def as_text(story: dict[str, Any]) -> str:
    """A story for a person: single values first, then lists as lines, then long texts under headings."""
    lines: list[str] = []
    blocks: list[str] = []
    for name, value in story.items():
        if value is None or value in ("", [], {}) or name == "kind":
            continue
        if name == "erased":
            lines.append(f"{name:<14} {len(value)} contents")
        elif name == "engine":
            lines.append(f"{name:<14} {_pace(msgspec.convert(value, Figures))}")
        elif name == "prompt":
            blocks += [f"── {part['role']} ──\n{_shown(part['content'])}" for part in value]
        elif name in ("recipe", "output", "item"):
            blocks.append(f"── {name} ──\n{_shown(value)}")
        elif isinstance(value, list) and isinstance(value[0], dict):
            rows = [
                "  " + "  ".join(f"{k}={_shown(v)}" for k, v in row.items() if v not in (None, "")) for row in value
            ]
            blocks.append("\n".join([f"── {name} ──", *rows]))
        else:
            lines.append(f"{name:<14} {_shown(value)}")
    return _printable("\n\n".join(["\n".join(lines), *blocks]))


def _pace(engine: Figures) -> str:
    """The figures that there are, in words."""
    told = {
        "{:,.0f} prompt tok/s": engine.prompt_tokens_per_s,
        "{:,.0f} tok/s written": engine.written_tokens_per_s,
        "{:.0f} % of prompts from the cache": engine.cached_share and 100 * engine.cached_share,
        "{:.1f} s in the queue": engine.mean_queue_s,
    }
    return ", ".join(words.format(figure) for words, figure in told.items() if figure is not None)


def _shown(value: Any) -> str:
    if value is None:
        return "(erased)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _printable(text: str) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)
