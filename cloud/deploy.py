"""Putting the bench where it can be rented: deploying the app, uploading models, looking after both.

Models stand on the volume under the digest of their content, so each goes up once, whatever its name here. Beside them
stands a mark: of which gx the app is.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import modal
import msgspec
from modal.volume import AbstractVolumeUploadContextManager

from cloud.names import APP, VOLUME
from cloud.rented import Account, connect, mapped
from cloud.snapshot import first_on_path, snapshot
from cloud.version import SHIPPED, Version, here, root
from gx.core.errors import CloudError
from gx.core.message import Value

MARK = "deployed.json"
"""The file on the volume that says of which gx the app is."""
Progress = Callable[[int, int], None]
"""Told how many bytes of how many have gone up."""


class Deployed(Value, frozen=True, kw_only=True):
    """What stands there: the app's id, None where it isn't deployed, and the models on the volume, bytes by digest.

    `version` is None where nobody left a mark.
    """

    app: str | None
    page: str = ""
    models: dict[str, int] = {}
    version: Version | None = None

    def is_current(self) -> bool:
        """Whether the app is there, and ships the source that is here."""
        return self.app is not None and self.version is not None and self.version.code == here().code


class Line(Value, frozen=True, kw_only=True):
    """A line that a container wrote: when, in wall-clock seconds, where ("stdout", "stderr", "system"), and which."""

    at: float
    source: str
    container: str
    text: str


@asynccontextmanager
async def client_of(account: Account) -> AsyncIterator[modal.Client]:
    """A connection for a while. :raises CloudError: if there is no token."""
    client = await connect(account)
    try:
        yield client
    finally:
        await client.close.aio()


async def deploy(account: Account, *, is_told: bool = False) -> str:
    """Deploy the app, anew where it stands already, and give its id.

    If it `is_told`, the SDK says on stderr what it does. In a process of its own: the SDK remembers in the app's
    objects where they were deployed first. And from a copy of the source, which may be edited meanwhile.

    :raises CloudError: if that fails.
    """
    command = [sys.executable, "-P", "-m", "cloud.deploy", *(["--tell"] if is_told else [])]
    stderr: dict[str, Any] = {"stderr": None} if is_told else {}
    with snapshot(root(), SHIPPED) as source:
        env = os.environ | account.environ() | first_on_path(source)
        done = await anyio.run_process(command, env=env, check=False, **stderr)
    try:
        said = msgspec.json.decode(done.stdout, type=_Said)
    except msgspec.MsgspecError:
        last = ((done.stderr or b"").decode(errors="replace").strip().splitlines() or ["see above"])[-1]
        raise CloudError(f"the app can't be deployed: {last}", hint="`gx cloud deploy` shows more") from None
    if said.app is None:
        raise CloudError(said.message, code=said.code, hint=said.hint)
    return said.app


class _Said(msgspec.Struct):
    """What the process that deploys says at its end."""

    app: str | None = None
    code: str = ""
    message: str = ""
    hint: str = ""


async def _deploy_here(*, is_told: bool) -> _Said:
    from cloud.app import app as made

    async with client_of(Account()) as client:
        with mapped():
            if is_told:
                with modal.enable_output():
                    deployed = await made.deploy.aio(client=client)
            else:
                deployed = await made.deploy.aio(client=client)
            mark = msgspec.structs.replace(here(), at=time.time())
            volume = await _volume(client)
            async with volume.batch_upload(force=True) as batch:
                batch.put_file(io.BytesIO(msgspec.json.encode(mark)), f"/{MARK}")
        return _Said(app=str(deployed.app_id))


def main() -> None:
    """Deploy by the environment's account, and say how it went on stdout; all else that is said goes to stderr."""
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        said = anyio.run(partial(_deploy_here, is_told="--tell" in sys.argv[1:]))
    except CloudError as error:
        said = _Said(code=error.code, message=error.message, hint=error.hint)
    os.write(answer, msgspec.json.encode(said) + b"\n")


async def status(account: Account) -> Deployed:
    """What stands there. :raises CloudError: if the account doesn't answer."""
    async with client_of(account) as client:
        with mapped():
            found = await _app(client)
            models, version = await _listed(client)
            return Deployed(app=None if found is None else found.app_id, models=models, version=version)


async def stop(account: Account) -> bool:
    """Stop the app and every container of it; whether there was one. :raises CloudError: if that fails."""
    async with client_of(account) as client:
        with mapped():
            found = await _app(client)
            if found is None:
                return False
            await found.stop.aio(client=client)
            return True


async def logs(account: Account, *, lines: int, follow: bool = False) -> AsyncIterator[Line]:
    """The last lines that containers wrote, then, to `follow`, those to come, until the app is stopped.

    :raises CloudError: if the account doesn't answer, or the app isn't deployed.
    """
    async with client_of(account) as client:
        with mapped():
            found = await _app(client)
            if found is None:
                raise CloudError("the app is not deployed", code="cloud.missing", hint="gx cloud deploy")
            last: tuple[float, str] = (0.0, "")
            async with aclosing(found.logs.tail.aio(lines)) as entries:
                async for entry in entries:
                    line = _line(entry)
                    last = (line.at, line.text)
                    yield line
            if follow:
                async with aclosing(found.logs.stream.aio()) as entries:
                    async for entry in entries:
                        line = _line(entry)
                        if (line.at, line.text) > last:  # it begins with what was there
                            yield line


async def upload(account: Account, digest: str, file: Path, on_progress: Progress | None = None) -> None:
    """Put a file on the volume under its SHA-256, and see that all of it is there.

    :raises CloudError: if it isn't that file any more, can't be put there, or came out shorter.
    """
    try:
        size = (await anyio.Path(file).stat()).st_size
        found = await anyio.to_thread.run_sync(_sha256, file)
    except OSError as error:
        raise CloudError(f"{file}: {error.strerror or error}", code="cloud.upload") from None
    if found != digest:
        what = f"{file.name}: expected the SHA-256 {digest[:12]}…, got {found[:12]}…"
        raise CloudError(what, code="cloud.upload", hint="the file was changed or is damaged: gx models pull NAME")
    async with client_of(account) as client:
        with mapped():
            volume = await _volume(client)
            metadata: Any = volume._get_metadata()  # as `batch_upload` does it, which tells no progress
            async with AbstractVolumeUploadContextManager.resolve(
                metadata.version, volume.object_id, client, progress_cb=_Told(size, on_progress), force=True
            ) as batch:
                batch.put_file(file, f"/{digest}.gguf")
            there = (await _listed(client))[0].get(digest)
    if there != size:
        raise CloudError(f"{file.name}: {size:,} bytes went up, {there or 0:,} arrived", hint="upload it again")


class _Told:
    """Adds up what the SDK says of an upload, which it does in several ways: by bytes, by blocks, and as done."""

    def __init__(self, size: int, on_progress: Progress | None) -> None:
        self._size, self._on_progress = size, on_progress
        self._done = 0

    def __call__(self, task: Any = None, **said: Any) -> Any:
        if said.get("reset"):
            self._done = 0
        self._done = min(self._size, self._done + int(said.get("advance") or 0))
        if said.get("complete"):
            self._done = self._size
        if self._on_progress is not None:
            self._on_progress(self._done, self._size)
        return "upload"


async def _app(client: modal.Client) -> modal.App | None:
    """The deployed app; None where there is none."""
    try:
        return await modal.App.lookup.aio(APP, client=client)
    except modal.exception.NotFoundError:
        return None


async def _volume(client: modal.Client) -> modal.Volume:
    volume = modal.Volume.from_name(VOLUME, create_if_missing=True, client=client)
    await volume.hydrate.aio()
    return volume


async def _listed(client: modal.Client) -> tuple[dict[str, int], Version | None]:
    """Bytes of the models on the volume, by digest, and of which gx the app is."""
    volume = await _volume(client)
    entries = await volume.listdir.aio("/")
    models = {Path(entry.path).stem: entry.size for entry in entries if entry.path.endswith(".gguf")}
    if not any(Path(entry.path).name == MARK for entry in entries):
        return models, None
    content = b"".join([part async for part in volume.read_file.aio(MARK)])
    try:
        return models, msgspec.json.decode(content, type=Version)
    except msgspec.MsgspecError:
        return models, None


def _line(entry: Any) -> Line:
    container = next((one for one in reversed(entry.context_ids) if one.startswith("ta-")), "")
    return Line(
        at=entry.timestamp.timestamp(), source=entry.source, container=container, text=entry.message.rstrip("\n")
    )


def _sha256(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


if __name__ == "__main__":
    main()
