"""An app for the loopback's tests: what a burst uses of Modal, each in a method of a few lines."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import modal

app = modal.App("loopback-tests")
image = modal.Image.debian_slim().env({"COLOUR": "deep red"})
models = modal.Volume.from_name("models", create_if_missing=True)
claims = modal.Dict.from_name("claims", create_if_missing=True)
news = modal.Queue.from_name("news", create_if_missing=True)


@app.cls(
    image=image,
    gpu="L4",
    max_containers=3,
    volumes={"/root/models": models},
    secrets=[modal.Secret.from_dict({"TOKEN": "t0k"})],
)
@modal.concurrent(max_inputs=8)
class Worker:
    """Many inputs at once, as a bench takes them."""

    @modal.enter()
    def load(self) -> None:
        self.inputs = 0
        print("the worker is loaded")

    @modal.method()
    async def echo(self, payload: bytes) -> bytes:
        return payload

    @modal.method()
    async def nap(self, seconds: float) -> str:
        print(f"napping in {os.environ['MODAL_TASK_ID']}")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            print("a nap was cancelled")
            raise
        return os.environ["MODAL_TASK_ID"]

    @modal.method()
    async def pid_then_nap(self, seconds: float) -> int:
        await news.put.aio(os.getpid())
        await asyncio.sleep(seconds)
        return os.getpid()

    @modal.method()
    async def variables(self) -> dict[str, str]:
        return {name: os.environ.get(name, "") for name in ("COLOUR", "TOKEN", "GX_TEST_OF_THE_DESK")}

    @modal.method()
    async def model(self, name: str) -> bytes:
        return await asyncio.to_thread((Path.home() / "models" / name).read_bytes)

    @modal.method()
    async def claim(self, key: str) -> bool:
        return bool(await claims.put.aio(key, modal.current_function_call_id(), skip_if_exists=True))

    @modal.method()
    async def fail(self, text: str) -> None:
        raise ValueError(text)

    @modal.method()
    async def can_import(self, name: str) -> str:
        try:
            return str(__import__(name).__file__)
        except ModuleNotFoundError as error:
            return str(error)


@app.cls(image=image, max_containers=2, scaledown_window=2)
class Narrow:
    """One input at a time, two containers at most."""

    @modal.method()
    def hold(self, seconds: float) -> str:
        import time

        time.sleep(seconds)
        return os.environ["MODAL_TASK_ID"]


@app.cls(image=image, timeout=1, startup_timeout=60)  # which is the time-out where nothing is said
class Hasty:
    @modal.method()
    async def nap(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@app.function(image=image)
def double(number: int) -> int:
    return 2 * number


@app.cls(image=image, startup_timeout=1)
class Sleeper:
    @modal.enter()
    async def load(self) -> None:
        await asyncio.sleep(60)

    @modal.method()
    async def late(self) -> None: ...
