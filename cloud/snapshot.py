"""The source that the app ships, as it is at one moment: a copy, so that an edit while it goes up changes nothing.

The SDK refuses to deploy files that change under it, and a mark of what was deployed must be of what went up.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gx.core.errors import CloudError


@contextmanager
def snapshot(root: Path, packages: Sequence[str]) -> Iterator[Path]:
    """A folder with the code of those packages of `root`, as long as the block lasts. :raises CloudError: if it can't
    be copied.
    """
    with tempfile.TemporaryDirectory(prefix="gx-source-") as folder:
        try:
            for package in packages:
                shutil.copytree(root / package, Path(folder) / package, ignore=_all_but_code)
        except (OSError, shutil.Error) as error:
            raise CloudError(f"the source in {root} can't be copied: {error}", code="cloud.source") from None
        yield Path(folder)


def first_on_path(folder: Path) -> dict[str, str]:
    """The variable by which a process finds that code before any other."""
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def _all_but_code(folder: str, names: list[str]) -> set[str]:
    """What is neither code nor a folder that may hold some."""
    return {name for name in names if not name.endswith(".py") and not _may_hold_code(Path(folder) / name)}


def _may_hold_code(path: Path) -> bool:
    return path.is_dir() and path.name != "__pycache__"
