"""How what an extra of gx brings is installed. gx is on no index: it is installed from its clone."""

from __future__ import annotations


def installing(extra: str) -> str:
    """What to type where that extra is missing, for a hint."""
    return f"`uv sync` in gx's clone, or `pip install '.[{extra}]'`"
