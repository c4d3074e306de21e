"""The source that goes up is that of one moment, whatever is edited meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud.snapshot import first_on_path, snapshot
from gx.core.errors import CloudError


def test_a_snapshot_has_the_code_alone_and_keeps_it_when_the_source_changes(tmp_path: Path) -> None:
    package = tmp_path / "gx"
    (package / "core" / "__pycache__").mkdir(parents=True)
    (package / "core" / "__pycache__" / "a.pyc").write_bytes(b"x")
    (package / "core" / "a.py").write_text("A = 1")
    (package / "notes.txt").write_text("n")
    with snapshot(tmp_path, ["gx"]) as folder:
        (package / "core" / "a.py").write_text("A = 2")
        files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        assert files == ["gx/core/a.py"] and (folder / "gx/core/a.py").read_text() == "A = 1"
    assert not folder.exists()


def test_a_source_that_can_t_be_copied_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(CloudError, match=str(tmp_path)), snapshot(tmp_path, ["gx"]):
        pass


def test_its_code_comes_before_what_stood_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", "/else")
    assert first_on_path(tmp_path)["PYTHONPATH"].split(":") == [str(tmp_path), "/else"]
    monkeypatch.delenv("PYTHONPATH")
    assert first_on_path(tmp_path)["PYTHONPATH"] == str(tmp_path)
