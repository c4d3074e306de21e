"""The interpreter of all containers: a virtual environment with the desk's packages, less this project.

It stands for the image. Packages are links into the environment that the plane itself runs in, so nothing is installed
or downloaded. What the project's own distribution put there is left out, an editable install's path file included: an
app that doesn't ship its source can't import it, as in a real image.
"""

from __future__ import annotations

import shutil
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

from cloud.loopback import lifeline

PROJECT = "gx"


def build(folder: Path) -> Path:
    """Make the environment and return its python. :raises OSError: if the folder can't be written."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    version = f"python{sysconfig.get_python_version()}"
    target = folder / "lib" / version / "site-packages"
    hidden = _owned(PROJECT)
    for source in dict.fromkeys(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")):
        for entry in source.iterdir():
            place = target / entry.name
            if entry.name not in hidden and not place.exists():
                place.symlink_to(entry)
    shutil.copyfile(lifeline.__file__, target / "loopback_lifeline.py")
    (target / "loopback_lifeline.pth").write_text("import loopback_lifeline\n")
    return folder / "bin" / "python"


def _owned(distribution: str) -> set[str]:
    """The top-level names that a distribution put into site-packages; none if it isn't installed."""
    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError:
        return set()
    return {file.parts[0] for file in files if file.parts[0] != ".."}
