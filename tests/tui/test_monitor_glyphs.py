"""The shapes that the monitor draws with: what a terminal can show is asked of its locale."""

from __future__ import annotations

import pytest

from gx.tui.glyphs import glyphs_for


@pytest.mark.parametrize(
    ("locale", "term", "is_ascii"),
    [
        ({}, "xterm-256color", False),
        ({"LANG": "de_DE.UTF-8"}, "xterm", False),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "C"}, "xterm", True),
        ({"LANG": "C"}, "xterm", True),
        ({"LANG": "en_US.UTF-8"}, "linux", True),
    ],
)
def test_shapes_are_ascii_where_the_locale_or_the_terminal_has_no_more(
    monkeypatch: pytest.MonkeyPatch, locale: dict[str, str], term: str, is_ascii: bool
) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**locale, "TERM": term}.items():
        monkeypatch.setenv(name, value)
    assert glyphs_for("utf-8").is_ascii is is_ascii
    assert glyphs_for("latin-1").is_ascii
    assert not glyphs_for("utf-8", is_ascii=False).is_ascii
