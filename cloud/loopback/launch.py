"""How a container comes to run: its root folder, its arguments, its variables, its cold start, its process.

It knows folders and processes; it decides nothing about inputs. `Launcher` is the `Host` of `containers`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import grpclib
from modal_proto import api_pb2

from cloud.loopback.apps import ENVIRONMENT, Apps
from cloud.loopback.containers import Container
from cloud.loopback.contents import below
from cloud.loopback.faults import FaultCounter
from cloud.loopback.functions import Functions
from cloud.loopback.images import Images
from cloud.loopback.ledger import Stay
from cloud.loopback.logs import Logs
from cloud.loopback.process import ContainerProcess, environment
from cloud.loopback.stores import Secrets
from cloud.loopback.volumes import Volumes


class Launcher:
    """Starts containers below `folder` with `python`. `url` is the plane's, known once it serves."""

    def __init__(
        self,
        *,
        folder: Path,
        config: Path,
        apps: Apps,
        functions: Functions,
        images: Images,
        volumes: Volumes,
        secrets: Secrets,
        logs: Logs,
        faults: FaultCounter,
        cold_start_s: float,
    ) -> None:
        self._folder, self._config = folder, config
        self._apps, self._functions, self._images = apps, functions, images
        self._volumes, self._secrets, self._logs, self._faults = volumes, secrets, logs, faults
        self._cold_start_s = cold_start_s
        self._began = time.monotonic()
        self.url = ""
        self.python = Path()

    def now(self) -> float:
        return time.monotonic() - self._began

    def stay(self, container: Container) -> Stay:
        function = self._functions.get(container.function_id)
        resources = self._functions.definition(container.function_id).resources
        app = self._apps.get(function.app_id)
        return Stay(
            task_id=container.task_id,
            app=app.name or app.description,
            function=function.sent.function_name,
            gpu=resources.gpu_config.gpu_type,
            gpu_count=resources.gpu_config.count,
            cpu_cores=resources.milli_cpu / 1000,
            memory_mib=resources.memory_mb,
            asked_at_s=self.now(),
        )

    async def run(self, container: Container) -> str:
        """See `Host.run`."""
        await asyncio.sleep(self._cold_start_s + self._faults.start_delay_s())
        definition = self._functions.definition(container.function_id)
        try:
            root = await asyncio.to_thread(self._unpacked, container, definition)
            env = environment(
                url=self.url,
                task_id=container.task_id,
                root=root,
                arguments=self._arguments(container, definition),
                config=self._config,
                python=self.python,
                extra=self._variables(definition),
            )
            process = await ContainerProcess.start(self.python, root, env, self._writer(container))
        except (OSError, grpclib.GRPCError) as error:
            return f"it could not be started: {error}"
        container.kill = process.signal
        return await process.ended()

    def _unpacked(self, container: Container, definition: api_pb2.Function) -> Path:
        """A root folder with the files of the app, and its volumes linked at their mount paths."""
        root = self._folder / container.task_id
        (root / "root").mkdir(parents=True)
        self._images.unpack(definition.image_id, list(definition.mount_ids), root)
        for mount in definition.volume_mounts:
            place = below(root, mount.mount_path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(self._volumes.folder(mount.volume_id) / mount.sub_path.lstrip("/"))
        return root

    def _arguments(self, container: Container, definition: api_pb2.Function) -> Path:
        function = self._functions.get(container.function_id)
        layout = self._functions.layout(container.function_id)
        layout.objects.extend(self._dependency(one.object_id) for one in definition.object_dependencies)
        told = api_pb2.ContainerArguments(
            task_id=container.task_id,
            function_id=container.function_id,
            app_id=function.app_id,
            function_def=definition,
            serialized_params=function.parameters,
            environment_name=ENVIRONMENT,
            app_layout=layout,
        )
        path = self._folder / f"{container.task_id}.arguments"
        path.write_bytes(told.SerializeToString())
        return path

    def _dependency(self, object_id: str) -> api_pb2.Object:
        """What a container is told of an image, a volume or a secret that its function names."""
        is_volume = object_id.startswith("vo-")
        return api_pb2.Object(
            object_id=object_id, volume_metadata=self._volumes.metadata(object_id) if is_volume else None
        )

    def _variables(self, definition: api_pb2.Function) -> dict[str, str]:
        found = self._images.variables(definition.image_id)
        for secret_id in definition.secret_ids:
            found.update(self._secrets.variables(secret_id))
        return found

    def _writer(self, container: Container) -> Callable[[int, str], None]:
        app_id = self._functions.get(container.function_id).app_id

        def write(fd: int, text: str) -> None:
            self._logs.write(app_id, container.function_id, container.task_id, fd, text)

        return write
