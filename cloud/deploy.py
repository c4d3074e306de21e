"""Putting the bench where it can be rented: deploying the app, uploading models, looking after both.

Models stand on the volume under the digest of their content, so each goes up once, whatever its name here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import modal
import msgspec

from cloud.names import APP, VOLUME
from cloud.rented import Account, connect, mapped
from gx.core.errors import CloudError
from gx.core.message import Value


class Deployed(Value, frozen=True, kw_only=True):
    """What stands there: the app's id, None where it isn't deployed, and the models on the volume, bytes by digest."""

    app: str | None
    page: str = ""
    models: dict[str, int] = {}


@asynccontextmanager
async def _client(account: Account) -> AsyncIterator[modal.Client]:
    client = await connect(account)
    try:
        yield client
    finally:
        await client.close.aio()


async def deploy(account: Account) -> str:
    """Deploy the app, anew where it stands already, and give its id. :raises CloudError: if that fails.

    In a process of its own: the SDK remembers in the app's objects where they were deployed first.
    """
    command = [sys.executable, "-P", "-m", "cloud.deploy"]
    done = await anyio.run_process(command, env=os.environ | account.environ(), check=False)
    try:
        said = msgspec.json.decode(done.stdout, type=_Said)
    except msgspec.MsgspecError:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"])[-1]
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


async def _deploy_here() -> _Said:
    from cloud.app import app as made

    async with _client(Account()) as client:
        with mapped():
            deployed = await made.deploy.aio(client=client)
        return _Said(app=str(deployed.app_id))


def main() -> None:
    """Deploy by the environment's account, and say how it went on stdout."""
    try:
        said = anyio.run(_deploy_here)
    except CloudError as error:
        said = _Said(code=error.code, message=error.message, hint=error.hint)
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")


async def status(account: Account) -> Deployed:
    """What stands there. :raises CloudError: if the account doesn't answer."""
    async with _client(account) as client:
        with mapped():
            try:
                found = await modal.App.lookup.aio(APP, client=client)
            except modal.exception.NotFoundError:
                return Deployed(app=None, models=await _listed(client))
            return Deployed(app=found.app_id, models=await _listed(client))


async def stop(account: Account) -> bool:
    """Stop the app and every container of it; whether there was one. :raises CloudError: if that fails."""
    async with _client(account) as client:
        with mapped():
            try:
                found = await modal.App.lookup.aio(APP, client=client)
            except modal.exception.NotFoundError:
                return False
            await found.stop.aio(client=client)
            return True


async def missing(account: Account, digests: Iterable[str]) -> list[str]:
    """Which of these files are not on the volume. :raises CloudError: if the account doesn't answer."""
    async with _client(account) as client:
        with mapped():
            there = await _listed(client)
        return [digest for digest in digests if digest not in there]


async def upload(account: Account, digest: str, file: Path) -> None:
    """Put a file on the volume under its SHA-256, and see that all of it is there.

    :raises CloudError: if it can't be, or came out shorter.
    """
    size = (await anyio.Path(file).stat()).st_size
    async with _client(account) as client:
        with mapped():
            volume = modal.Volume.from_name(VOLUME, create_if_missing=True, client=client)
            await volume.hydrate.aio()
            async with volume.batch_upload(force=True) as batch:
                batch.put_file(file, f"/{digest}.gguf")
            there = (await _listed(client)).get(digest)
    if there != size:
        raise CloudError(f"{file.name}: {size:,} bytes went up, {there or 0:,} arrived", hint="upload it again")


async def _listed(client: modal.Client) -> dict[str, int]:
    """Bytes of the models on the volume, by digest."""
    volume = modal.Volume.from_name(VOLUME, create_if_missing=True, client=client)
    await volume.hydrate.aio()
    entries = await volume.listdir.aio("/")
    return {Path(entry.path).stem: entry.size for entry in entries if entry.path.endswith(".gguf")}


if __name__ == "__main__":
    main()
