"""The monitor's colours: four palettes, each a Textual theme and the styles of what is drawn by hand.

Nothing is told by colour alone, so that `plain`, and NO_COLOR, lose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from rich.style import Style
from textual.theme import Theme

PALETTES: dict[str, dict[str, str]] = {
    "dark": {
        "background": "#11151c", "surface": "#161b24", "panel": "#1f2733", "foreground": "#d6dde8",
        "muted": "#8190a5", "primary": "#6cb0f5", "accent": "#f5c26c", "success": "#5fc98b", "error": "#f2777a",
        "warning": "#e89a5b",
    },
    "light": {
        "background": "#fbfbf8", "surface": "#f2f2ec", "panel": "#e3e4dc", "foreground": "#1f2630",
        "muted": "#5d6774", "primary": "#1c5fae", "accent": "#8a5a00", "success": "#17713d", "error": "#b3242b",
        "warning": "#9a4b06",
    },
    "contrast": {
        "background": "#000000", "surface": "#000000", "panel": "#303030", "foreground": "#ffffff",
        "muted": "#d0d0d0", "primary": "#5fd7ff", "accent": "#ffff00", "success": "#00ff5f", "error": "#ff8787",
        "warning": "#ffaf00",
    },
    "plain": {
        "background": "#101010", "surface": "#101010", "panel": "#2c2c2c", "foreground": "#e0e0e0",
        "muted": "#a0a0a0", "primary": "#e0e0e0", "accent": "#ffffff", "success": "#e0e0e0", "error": "#ffffff",
        "warning": "#ffffff",
    },
}  # fmt: skip
"""Foreground on background, and each colour on it, have a contrast of 4.5 to 1 at least (WCAG 2.2, AA)."""

Paint = Mapping[str, Style]
"""A style by what it is for: a palette's names, and "bold", "title", "cursor"."""


def themes() -> list[Theme]:
    """The palettes as Textual has them."""
    return [
        Theme(
            name=name,
            primary=p["primary"],
            secondary=p["accent"],
            accent=p["accent"],
            success=p["success"],
            warning=p["warning"],
            error=p["error"],
            foreground=p["foreground"],
            background=p["background"],
            surface=p["surface"],
            panel=p["panel"],
            dark=name != "light",
            variables={
                "footer-key-foreground": p["accent"],
                "footer-background": p["panel"],
                "block-cursor-background": p["primary"],
                "block-cursor-foreground": p["background"],
                "border": p["muted"],
                "border-blurred": p["panel"],
                "scrollbar": p["panel"],
                "scrollbar-background": p["background"],
                "scrollbar-corner-color": p["background"],
            },
        )
        for name, p in PALETTES.items()
    ]


@cache
def paint_of(theme: str) -> Paint:
    """The styles of a palette; of `dark`, where the theme is none of ours."""
    palette = PALETTES.get(theme, PALETTES["dark"])
    styles = {name: Style(color=colour) for name, colour in palette.items()}
    styles["text-muted"] = styles["muted"]
    styles["bold"] = Style(color=palette["foreground"], bold=True)
    styles["title"] = Style(color=palette["primary"], bold=True)
    styles["alarm"] = Style(color=palette["error"], bold=True)
    styles["cursor"] = Style(color=palette["background"], bgcolor=palette["accent"], bold=True)
    styles["row"] = Style(bgcolor=palette["panel"], bold=True)
    return styles
