"""A task's story as text: where it stands, its attempts, its prompt as it was sent, its answer. Pure."""

from __future__ import annotations

import json
from typing import Any

from gx.core.inert import inert_line
from gx.node.previews import Preview
from gx.tui.themes import Paint
from gx.tui.widgets.longtext import Part

_FIRST = ("status", "id", "step", "task", "model", "label", "queued", "ended", "tok_in", "tok_out", "ms", "cached")
_WIDTHS = {"attempt": 7, "worker": 7, "outcome": 10, "started": 12, "ms": 8, "tok_in": 6, "tok_out": 7, "error": 30}


def answer_of(story: dict[str, Any], preview: Preview | None) -> str:
    """The answer, or what there is of it yet."""
    if story.get("output") is not None:
        return as_text(story["output"])
    return preview.text if preview is not None else ""


def prompt_of(story: dict[str, Any]) -> str:
    """The messages as they were sent, each under its role."""
    return "\n\n".join(f"{part['role']}:\n{as_text(part['content'])}" for part in story.get("prompt") or ())


def written(story: dict[str, Any], preview: Preview | None) -> str:
    """Prompt and answer as a file; one that was answered from the log was never sent."""
    prompt = prompt_of(story)
    return (f"{prompt}\n\n" if prompt else "") + f"answer:\n{answer_of(story, preview)}\n"


def as_text(value: Any) -> str:
    """A value of JSON for a person; what was erased says so."""
    if value is None:
        return "(erased)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def parts(story: dict[str, Any], preview: Preview | None, paint: Paint) -> list[Part]:
    """Everything, in the order in which it is wanted: how it stands, the answer, the prompt, the row."""
    found = [Part(f"{name:<9} {_value(name, story[name])}") for name in _FIRST if story.get(name) not in (None, "")]
    if story.get("error"):
        found.append(Part(f"failed    {story['error']['code']}: {story['error']['message']}", paint["error"]))
    if story.get("attempts"):
        found += [_heading("attempts", paint), Part(_row({name: name for name in _WIDTHS}), paint["muted"])]
        found += [Part(_row(_cells(one))) for one in story["attempts"]]
    found += _answer(story, preview, paint)
    for message in story.get("prompt") or ():
        found += [_heading(f"prompt: {message['role']}", paint), Part(as_text(message["content"]))]
    if story.get("item") is not None:
        found += [_heading("row", paint), Part(as_text(story["item"]))]
    for one in story.get("attempts") or ():
        if one.get("detail"):
            found += [_heading(f"detail of attempt {one['attempt']}", paint), Part(as_text(one["detail"]))]
    return found


def _answer(story: dict[str, Any], preview: Preview | None, paint: Paint) -> list[Part]:
    if story.get("output") is not None:
        return [_heading("answer", paint), Part(as_text(story["output"]))]
    if preview is None:
        return []
    cut = ", its end" if preview.is_cut else ""
    title = f"answer, as it comes: {preview.tokens_out:,} tokens{cut}"
    return [_heading(title, paint), Part(preview.text or "(no token yet)", paint["accent"])]


def _heading(text: str, paint: Paint) -> Part:
    return Part(f"\n{text}", paint["title"])


def _value(name: str, value: Any) -> str:
    if name == "model":
        return str(value)[:12]
    return f"{value:,.0f}" if isinstance(value, float) else inert_line(str(value))


def _cells(attempt: dict[str, Any]) -> dict[str, str]:
    took = attempt.get("ms")
    return {
        "attempt": str(attempt["attempt"]),
        "worker": attempt["worker"] or "",
        "outcome": attempt["outcome"] or "running",
        "started": str(attempt["started"] or "")[11:23],
        "ms": "" if took is None else f"{took:,.0f}",
        "tok_in": f"{attempt['tok_in']:,}",
        "tok_out": f"{attempt['tok_out']:,}",
        "error": inert_line(f"{attempt['error_code']}: {attempt['error_message']}") if attempt["error_code"] else "",
    }


def _row(cells: dict[str, str]) -> str:
    return " ".join(f"{cells[name]:<{width}}" for name, width in _WIDTHS.items()).rstrip()
