"""A stand for rehearsals: a loopback in a process of its own, with the app deployed and models on its volume.

It knows the loopback only by what that prints and is told, and whoever rents there only gets an `Account`: from there
on the code path is that of real money.

Invariant: the loopback and its containers end with the stand, and with this process however it ends: all that keeps
them is a pipe.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import modal
import msgspec
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from cloud import deploy
from cloud.cost import RATES, Rates
from cloud.loopback.faults import Faults
from cloud.names import VOLUME
from cloud.rented import Account, mapped
from gx.core.errors import CloudError
from gx.core.message import Value

_START_S = 60.0
"""How long a loopback may take to serve: it builds an environment for its containers first."""
_ENDING_S = 15.0
_LINE_BYTES = 64 << 20
"""The longest report: it names each container."""


class Bill(Value, frozen=True, kw_only=True):
    """What the containers with one kind of GPU did, in seconds: `billed_s = loading_s + busy_s + idle_s`.

    `usd` is what that would have cost; `None` where nobody knows the price.
    """

    gpu: str
    containers: int
    inputs: int
    billed_s: float
    loading_s: float
    busy_s: float
    idle_s: float
    usd: float | None = None


class Rehearsed(Value, frozen=True, kw_only=True):
    """What happened on the stand so far. `calls` counts by state: queued, running, or how they ended."""

    bills: tuple[Bill, ...] = ()
    calls: dict[str, int] = {}
    faults: tuple[str, ...] = ()

    @property
    def containers(self) -> int:
        return sum(bill.containers for bill in self.bills)

    @property
    def loading_s(self) -> float:
        return sum(bill.loading_s for bill in self.bills)

    @property
    def busy_s(self) -> float:
        return sum(bill.busy_s for bill in self.bills)

    @property
    def idle_s(self) -> float:
        return sum(bill.idle_s for bill in self.bills)

    @property
    def usd(self) -> float:
        """What all containers with a known price would have cost."""
        return sum(bill.usd or 0.0 for bill in self.bills)


class _Hello(msgspec.Struct):
    """What a loopback says once it serves."""

    url: str
    environ: dict[str, str]


class Stand:
    """A loopback that serves. Use `rehearsing`."""

    def __init__(self, folder: Path, process: Process, rates: Mapping[str, Rates]) -> None:
        assert process.stdout is not None
        self._folder, self._process, self._rates = folder, process, rates
        self._said = BufferedByteReceiveStream(process.stdout)
        self._asking = anyio.Lock()
        self.account = Account()

    def __repr__(self) -> str:
        return f"<Stand {self.account.url}, process {self.pid}>"

    @property
    def pid(self) -> int:
        """The process of the loopback."""
        return self._process.pid

    async def furnish(self, files: Mapping[str, Path]) -> None:
        """Put models on the volume, by their SHA-256: as links into the folder that stands for it, which cost nothing.

        :raises CloudError: if one can't be put there.
        """
        there = await deploy.status(self.account)
        wanted = {sha256: file for sha256, file in files.items() if sha256 not in there.models}
        if not wanted:
            return
        folder = self._folder / "volumes" / await self._volume()
        for sha256, file in wanted.items():
            if not await anyio.to_thread.run_sync(_linked, file, folder / f"{sha256}.gguf"):
                await deploy.upload(self.account, sha256, file)

    async def report(self) -> Rehearsed:
        """What happened so far. :raises CloudError: if the loopback is gone."""
        async with self._asking:
            try:
                assert self._process.stdin is not None
                await self._process.stdin.send(b"report\n")
                line = await self._line()
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                raise CloudError("the rehearsal's control plane is gone", code="cloud.rehearsal") from None
        return priced(msgspec.json.decode(line, type=Rehearsed), self._rates)

    async def greet(self) -> None:
        """Wait until it serves. :raises CloudError: if it doesn't come up."""
        hello: _Hello | None = None
        with anyio.move_on_after(_START_S):
            hello = msgspec.json.decode(await self._line(), type=_Hello)
        if hello is None:
            raise CloudError(f"the rehearsal's control plane was not up within {_START_S:g} s", code="cloud.rehearsal")
        token = hello.environ
        self.account = Account(
            token_id=token["MODAL_TOKEN_ID"], token_secret=token["MODAL_TOKEN_SECRET"], url=hello.url
        )

    async def aclose(self) -> None:
        """End the loopback and its containers."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        with anyio.move_on_after(_ENDING_S):
            while await self._more():
                pass
            await self._process.wait()
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        await self._process.aclose()

    async def _more(self) -> bool:
        """Whether it had more to say: nobody listens, but its pipe must not fill."""
        try:
            await self._said.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return False
        return True

    async def _line(self) -> bytes:
        try:
            return await self._said.receive_until(b"\n", _LINE_BYTES)
        except (anyio.EndOfStream, anyio.IncompleteRead):
            await self._process.wait()
            raise CloudError(
                f"the rehearsal's control plane ended with {self._process.returncode}",
                code="cloud.rehearsal",
                hint=f"its folder must be writable: {self._folder}",
            ) from None

    async def _volume(self) -> str:
        async with deploy.client_of(self.account) as client:
            with mapped():
                volume = modal.Volume.from_name(VOLUME, create_if_missing=True, client=client)
                await volume.hydrate.aio()
                return str(volume.object_id)


@asynccontextmanager
async def rehearsing(
    folder: Path,
    *,
    faults: Faults | None = None,
    cold_start_s: float = 0.0,
    max_containers: int | None = None,
    rates: Mapping[str, Rates] = RATES,
) -> AsyncIterator[Stand]:
    """A stand below `folder`, which is made, with the app deployed. `cold_start_s` passes before a container starts.

    :raises CloudError: if the loopback doesn't come up, or the app can't be deployed there.
    """
    told = {"cold_start_s": cold_start_s} | ({} if faults is None else {"faults": msgspec.to_builtins(faults)})
    if max_containers is not None:
        told["max_containers"] = max_containers
    command = [sys.executable, "-P", "-m", "cloud.loopback", str(folder), msgspec.json.encode(told).decode()]
    process = await anyio.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, start_new_session=True
    )
    stand = Stand(folder, process, rates)
    try:
        await stand.greet()
        await deploy.deploy(stand.account)
        yield stand
    finally:
        with anyio.CancelScope(shield=True):
            await stand.aclose()


def priced(seen: Rehearsed, rates: Mapping[str, Rates]) -> Rehearsed:
    """With what the seconds would have cost."""
    bills = []
    for bill in seen.bills:
        known = rates.get(bill.gpu)
        usd = None if known is None or not math.isfinite(bill.billed_s) else known.usd_per_s * bill.billed_s
        bills.append(msgspec.structs.replace(bill, usd=usd))
    return msgspec.structs.replace(seen, bills=tuple(bills))


def _linked(file: Path, place: Path) -> bool:
    """Have a file stand at `place` too: a link, or a copy where there can be none."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        try:
            os.link(file.resolve(), place)
        except OSError:
            part = place.with_suffix(".part")
            shutil.copyfile(file, part)
            part.replace(place)
    except OSError:
        return False
    return True
