"""The plane's life: all parts put together, served on a free port of 127.0.0.1, and ended with every container.

async with Plane(folder, faults=Faults(kill=(3,))) as plane:
    subprocess.run(command, env={**os.environ, **plane.environ()})
    print(plane.report())
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType

import grpclib.server
import msgspec

from cloud.loopback import interpreter
from cloud.loopback.apps import App, Apps
from cloud.loopback.backlog import Backlog
from cloud.loopback.blobs import Blobs
from cloud.loopback.calls import Calls
from cloud.loopback.containers import Containers
from cloud.loopback.contents import Contents
from cloud.loopback.faults import FaultCounter, Faults
from cloud.loopback.functions import Functions
from cloud.loopback.images import Images
from cloud.loopback.inside import Inside
from cloud.loopback.launch import Launcher
from cloud.loopback.ledger import Bill, Ledger, Stay, bills
from cloud.loopback.logs import Logs
from cloud.loopback.record import Record
from cloud.loopback.rpc import Caller, Service, new_id
from cloud.loopback.stores import Dicts, Queues, Secrets
from cloud.loopback.volumes import Volumes

# Modal's Starter plan: containers at once.
MAX_CONTAINERS = 100


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What happened so far. `calls` counts by state: queued, running, or how they ended.

    `unspoken` names RPCs that were asked for and that the loopback doesn't speak; `broken` holds its own tracebacks.
    """

    at_s: float
    calls: dict[str, int]
    bills: tuple[Bill, ...]
    containers: tuple[Stay, ...]
    faults: tuple[str, ...]
    blob_bytes: int
    unspoken: tuple[str, ...]
    broken: tuple[str, ...]


class Plane:
    """A control plane. Enter it to start it; leaving it kills its containers and nothing else.

    `folder` is made, and keeps what was uploaded and what the containers left; with `is_recorded` each message too, in
    the file `record`. `cold_start_s` passes before a container's process starts. Entering raises OSError if the folder
    can't be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        faults: Faults | None = None,
        cold_start_s: float = 0.0,
        max_containers: int = MAX_CONTAINERS,
        is_recorded: bool = False,
    ) -> None:
        self._folder = folder.resolve()
        self._faults = FaultCounter(faults or Faults())
        self._cold_start_s, self._max_containers = cold_start_s, max_containers
        self._record = Record(self._folder / "record" if is_recorded else None)
        self._exits = AsyncExitStack()
        self._backlog, self._ledger, self.logs = Backlog(), Ledger(), Logs()
        self._token = (new_id("ak"), new_id("as"))
        self.url = ""

    async def __aenter__(self) -> Plane:
        try:
            await self._start()
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exits.aclose()

    def environ(self) -> dict[str, str]:
        """The variables that make any Modal client talk to this plane, and to nothing else."""
        return {
            "MODAL_SERVER_URL": self.url,
            "MODAL_TOKEN_ID": self._token[0],
            "MODAL_TOKEN_SECRET": self._token[1],
            "MODAL_CONFIG_PATH": str(self._config),
            "MODAL_PROFILE": "",
            "MODAL_ENVIRONMENT": "",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def report(self) -> Report:
        """What happened so far."""
        now_s = self._launcher.now()
        stays = tuple(self._ledger.stays.values())
        states: Counter[str] = Counter(
            call.ending or ("running" if call.holder else "queued") for call in self._backlog
        )
        return Report(
            at_s=now_s,
            calls=dict(states),
            bills=bills(stays, now_s),
            containers=stays,
            faults=tuple(self._faults.struck),
            blob_bytes=self._blobs.uploaded_bytes,
            unspoken=tuple(sorted(self._service.unspoken)),
            broken=tuple(self._service.broken),
        )

    async def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._config = self._folder / "modal.toml"
        self._config.write_text("")
        await self._assemble()
        python = self._folder / "image" / "bin" / "python"
        self._launcher.python = (
            python if python.exists() else await asyncio.to_thread(interpreter.build, self._folder / "image")
        )
        await self._blobs.start()
        self._exits.push_async_callback(self._blobs.stop)
        server, listener = grpclib.server.Server([self._service]), tcp_listener()
        self._launcher.url = self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        await server.start(sock=listener)
        self._exits.push_async_callback(_closed, server)
        self._exits.callback(self._containers.close)

    async def _assemble(self) -> None:
        """Build every part; each gets what it needs of those before it."""
        tasks = await self._exits.enter_async_context(asyncio.TaskGroup())
        contents = Contents(self._folder / "files")
        self._blobs = Blobs(self._folder / "blobs", contents, self._folder / "volumes", self._record)
        volumes = Volumes(self._folder / "volumes", contents, self._blobs)
        images, secrets = Images(contents, self._blobs), Secrets()
        self._apps = Apps(self._published, self._stopped)
        self._functions = Functions(self._apps, lambda function_id: self._containers.pump(function_id))
        self._launcher = Launcher(
            folder=self._folder / "containers",
            config=self._config,
            apps=self._apps,
            functions=self._functions,
            images=images,
            volumes=volumes,
            secrets=secrets,
            logs=self.logs,
            faults=self._faults,
            cold_start_s=self._cold_start_s,
        )
        self._calls = Calls(
            functions=self._functions,
            backlog=self._backlog,
            faults=self._faults,
            is_stopped=self._is_stopped,
            now=self._launcher.now,
        )
        self._containers = self._calls.containers = Containers(
            functions=self._functions,
            backlog=self._backlog,
            ledger=self._ledger,
            faults=self._faults,
            host=self._launcher,
            tasks=tasks,
            max_containers=self._max_containers,
            is_stopped=self._is_stopped,
            on_ended=self._calls.ended,
        )
        inside = Inside(
            functions=self._functions,
            backlog=self._backlog,
            containers=self._containers,
            on_ended=self._calls.ended,
        )
        parts = (self._apps, self._functions, self._calls, inside, images, volumes, secrets, self._blobs, self.logs)
        self._service = Service([*parts, Dicts(), Queues()], self._faults, self._is_admitted, self._record)

    def _is_admitted(self, caller: Caller) -> bool:
        return caller.token == self._token or self._containers.find(caller.task_id) is not None

    def _is_stopped(self, function_id: str) -> bool:
        return self._apps.get(self._functions.get(function_id).app_id).is_stopped

    def _published(self, app: App) -> None:
        """A deployment: containers of older definitions finish and go; what is to be kept warm starts."""
        for function in self._functions.of_app(app.app_id):
            for container in self._containers.live(function.function_id):
                if container.generation != self._functions.generation(function.function_id):
                    self._containers.leave(container, "replaced by a new deployment")
            self._containers.pump(function.function_id)

    def _stopped(self, app: App) -> None:
        for function in self._functions.of_app(app.app_id):
            self._calls.stop(function.function_id)
        self.logs.end(app.app_id)


def tcp_listener() -> socket.socket:
    """A socket on a free port. asyncio sets TCP_NODELAY only on one that names its protocol; replies come late else."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    return listener


async def _closed(server: grpclib.server.Server) -> None:
    server.close()
    await server.wait_closed()
