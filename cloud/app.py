"""The app that is deployed: its image, its volume, and one class. Decorators only; the work is in `cloud.container`.

A set of parameters has containers of its own, so each run's containers, and what they cost, are known apart. What one
asks for is its limit too, since Modal bills the larger of what is asked for and what is used. Modal retries nothing:
gx does. Annotations are evaluated here, since the SDK reads the types of parameters from them.
"""

import os
import sys
from importlib import metadata
from pathlib import Path

import modal

from cloud.container import Container
from cloud.cost import CORES, LEAST_GIB
from cloud.message import MODELS
from cloud.names import APP, VOLUME, board_of

CUDA = "nvidia/cuda:12.4.1-runtime-ubuntu22.04"
"""A runtime image: the wheels of llama-cpp-python leave libcudart and libcublas out."""
WHEELS = "https://abetlen.github.io/llama-cpp-python/whl/cu124"
"""Where llama-cpp-python publishes its builds for CUDA 12.4."""
MOST_INPUTS = 96
"""How many jobs a container may hold: more than any engine's slots, so that the next ones are there in time."""
START_UP_S = 300
"""A container that isn't ready by then is given up; until then it may cost."""


def _packages() -> list[str]:
    """What the bench needs, as pinned by gx itself. In a container, where gx isn't installed, the image has them."""
    if not modal.is_local():
        return []
    wanted = [text for text in metadata.requires("gx") or [] if "extra" not in text or 'extra == "edge"' in text]
    names = ("anyio", "msgspec", "llama-cpp-python", "llguidance", "numpy")
    return [text.split(";")[0].strip() for text in wanted if text.startswith(names)]


def _is_code(file: Path) -> bool:
    return file.suffix == ".py"


image = (
    modal.Image.from_registry(CUDA, add_python=f"{sys.version_info.major}.{sys.version_info.minor}")
    .entrypoint([])
    .uv_pip_install(*_packages(), extra_index_url=WHEELS)
    .add_local_python_source("gx", "edge", "cloud", ignore=lambda file: not _is_code(file))
)
app = modal.App(APP, include_source=False)
models = modal.Volume.from_name(VOLUME, create_if_missing=True)


class DictBoard:
    """Claims and leases in a run's Dict."""

    def __init__(self, run: str) -> None:
        self._dict = modal.Dict.from_name(board_of(run), create_if_missing=True)

    async def claim(self, key: str, call: str) -> str:
        if await self._dict.put.aio(key, call, skip_if_exists=True):
            return call
        return str(await self._dict.get.aio(key, call))

    async def paid_until(self, driver: str) -> float:
        return float(await self._dict.get.aio(driver, 0.0))

    async def say(self, key: str, value: bytes) -> None:
        await self._dict.put.aio(key, value)


@app.cls(
    image=image,
    gpu="L4",
    cpu=(CORES, CORES),
    memory=(LEAST_GIB << 10, LEAST_GIB << 10),
    volumes={f"/root/{MODELS}": models},
    retries=0,
    timeout=3600,
    startup_timeout=START_UP_S,
)
@modal.concurrent(max_inputs=MOST_INPUTS)
class Bench:
    """One container: a bench with `slots` (0: as many as it sees fit) that works for one run."""

    run: str = modal.parameter()
    slots: int = modal.parameter(default=0)

    @modal.enter()
    async def start(self) -> None:
        self._container = Container(
            name=os.environ.get("MODAL_TASK_ID", ""),
            models=Path.home() / MODELS,
            board=DictBoard(self.run),
            slots=self.slots or None,
            threads=int(CORES),
        )
        await self._container.start()

    @modal.exit()
    async def stop(self) -> None:
        await self._container.stop()

    @modal.method()
    async def execute(self, payload: bytes) -> bytes:
        return await self._container.execute(payload, modal.current_function_call_id() or "")
