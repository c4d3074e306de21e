"""What is known of a run or a task, as text for a person. Content that was erased is "(erased)"."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from gx.core.figures import Figures
from gx.core.inert import inert

MOST_CHARS = 100
"""Of a memory; the prompt below has all of it."""


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
        elif name == "memories":
            blocks.append("\n".join([f"── {name} ──", *(_memory(one) for one in value)]))
        elif name in ("recipe", "output", "item"):
            blocks.append(f"── {name} ──\n{_shown(value)}")
        elif isinstance(value, list) and isinstance(value[0], dict):
            rows = [
                "  " + "  ".join(f"{k}={_shown(v)}" for k, v in row.items() if v not in (None, "")) for row in value
            ]
            blocks.append("\n".join([f"── {name} ──", *rows]))
        else:
            lines.append(f"{name:<14} {_shown(value)}")
    return inert("\n\n".join(["\n".join(lines), *blocks]))


def _memory(one: dict[str, Any]) -> str:
    """What was found, in a line: its name in the prompt, its score and label, where it is from, how it begins.

    Where a reranker ordered it, its score and the place before that stand behind the score.
    """
    text = " ".join(_shown(one["text"]).split())
    text = text if len(text) <= MOST_CHARS else text[: MOST_CHARS - 1] + "…"
    score = f"{one['score']:.2f}"
    if one.get("relevance") is not None:
        score += f"  relevance {one['relevance']:.2f} (was {one['fused_rank']})"
    return f"  {one['id']}  {score}  {one['label']}  {one['source']}  ({one['uid']})  {text}"


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
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
