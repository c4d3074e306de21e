"""The deployed app as a driver uses it: spawn, poll, cancel, scale, vouch. The driver's side of Modal's SDK.

It knows the SDK and maps its errors; it knows no attempts and no money. Control calls have a client of their own: one
HTTP/2 connection carries 100 streams, and polls would take them all.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import aiohttp
import anyio
import modal
import modal.exception as refused
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from modal.config import config

from cloud.cost import CORES, LEAST_GIB
from cloud.names import APP, CLASS, board_of
from gx.core.errors import CloudError
from gx.core.message import Value

_CLOSING_S = 5.0


class Account(Value, frozen=True, kw_only=True):
    """Whose containers they are. Without a token, Modal's own configuration says; `url` is another control plane."""

    token_id: str | None = None
    token_secret: str | None = None
    url: str | None = None

    def environ(self) -> dict[str, str]:
        """The variables by which the SDK finds it in a process of its own."""
        given = {"MODAL_TOKEN_ID": self.token_id, "MODAL_TOKEN_SECRET": self.token_secret, "MODAL_SERVER_URL": self.url}
        return {name: value for name, value in given.items() if value is not None}


class Pool(Value, frozen=True, kw_only=True):
    """The containers of one run: `gpu` None leaves it to the app, `slots` 0 to the bench. Times in seconds.

    A container is meant to hold `inputs` at once, and takes half as many more; 0 leaves that to the app.
    """

    run: str
    gpu: str | None = None
    slots: int = 0
    inputs: int = 0
    max_containers: int = 1
    scaledown_s: int = 30
    timeout_s: int = 3600
    memory_gib: int = LEAST_GIB


class Gone(Exception):
    """A call that will never give a result: its container did not do what it should.

    `is_expired`: it may have given one, which is no longer kept. `is_suspect`: it may be what ended its containers.
    `is_late`: it had its time, and its container may be as good as any.
    """

    def __init__(
        self, reason: str, *, is_expired: bool = False, is_suspect: bool = False, is_late: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.is_expired, self.is_suspect, self.is_late = reason, is_expired, is_suspect, is_late


class Refused(Exception):
    """A call was not taken, and none was made: for now, or as it is."""


class Rented:
    """The containers of one run. Use `rent`."""

    def __init__(self, pool: Pool, control: modal.Client, polling: modal.Client) -> None:
        self.pool, self._polling = pool, polling
        chosen = modal.Cls.from_name(APP, CLASS, client=control).with_options(
            gpu=pool.gpu,
            cpu=(CORES, CORES),
            memory=(pool.memory_gib << 10, pool.memory_gib << 10),
            max_containers=pool.max_containers,
            scaledown_window=pool.scaledown_s,
            timeout=pool.timeout_s,
        )
        if pool.inputs:
            chosen = chosen.with_concurrency(max_inputs=pool.inputs + (pool.inputs + 1) // 2, target_inputs=pool.inputs)
        self._bench = chosen(run=pool.run, slots=pool.slots)
        self._board = modal.Dict.from_name(board_of(pool.run), create_if_missing=True, client=control)
        self._control = control

    async def spawn(self, payload: bytes) -> str:
        """Begin a call, and give its id. :raises Refused: if none was made. :raises CloudError: if it can't be."""
        try:
            call = await self._bench.execute.spawn.aio(payload)
        except _REFUSALS as error:
            raise Refused(cloud_error(error).message) from None
        except _ERRORS as error:
            raise cloud_error(error) from None
        return str(call.object_id)

    async def poll(self, call: str) -> bytes | None:
        """What a call gave; `None` if it isn't done.

        :raises Gone: if it never will be. :raises CloudError: if nobody can say.
        """
        try:
            found = modal.FunctionCall.from_id(call, self._polling)
            return bytes(await found.get.aio(timeout=0))
        except (refused.OutputExpiredError, refused.NotFoundError):
            raise Gone("its result is no longer kept", is_expired=True) from None
        except refused.InternalFailure as error:
            raise Gone(_words(error) or "its containers died", is_suspect=True) from None
        except refused.FunctionTimeoutError:
            raise Gone(f"it took longer than {self.pool.timeout_s} s", is_late=True) from None
        except TimeoutError:
            return None
        except (refused.RemoteError, refused.ExecutionError) as error:
            raise Gone(_words(error) or "it was cancelled") from None
        except _ERRORS as error:
            raise cloud_error(error) from None
        except Exception as error:  # noqa: BLE001 - what was raised in the container comes as it is
            raise Gone(f"its container failed: {type(error).__name__}: {_words(error)}") from None

    async def cancel(self, call: str) -> None:
        """End a call; one that is over or forgotten is left as it is. :raises CloudError: if that can't be asked."""
        with mapped(), suppress(refused.NotFoundError):
            await modal.FunctionCall.from_id(call, self._control).cancel.aio()

    async def scale(self, max_containers: int) -> None:
        """How many containers there may be from now on, at least 1. :raises CloudError: if that can't be asked."""
        with mapped():
            await self._bench.execute.autoscaler.update.aio(min_containers=0, max_containers=max_containers)

    async def vouch(self, driver: str, until: float) -> None:
        """Pay for what begins before `until`, in wall-clock seconds. :raises CloudError: if nobody can be told."""
        with mapped():
            await self._board.put.aio(driver, until)

    async def said(self, key: str) -> bytes | None:
        """What a container left word of on the board. :raises CloudError: if nobody can be asked."""
        with mapped():
            said = await self._board.get.aio(key)
            return said if isinstance(said, bytes) else None

    async def forget(self) -> None:
        """Drop the run's claims and leases: no call of it is open any more."""
        with mapped():
            await modal.Dict.objects.delete.aio(board_of(self.pool.run), allow_missing=True, client=self._control)


@asynccontextmanager
async def rent(pool: Pool, account: Account) -> AsyncIterator[Rented]:
    """The containers of a run, none of which starts before there is something to do.

    :raises CloudError: if there is no account, no deployed app, or no way there.
    """
    control, polling = await connect(account), await connect(account)
    try:
        rented = Rented(pool, control, polling)
        with mapped():
            await rented._bench.execute.hydrate.aio()
        yield rented
    finally:
        with anyio.move_on_after(_CLOSING_S, shield=True):
            for client in (control, polling):
                await client.close.aio()


async def connect(account: Account) -> modal.Client:
    """A connection of its own. :raises CloudError: if there is no token."""
    with mapped():
        token_id = account.token_id or config["token_id"]
        token_secret = account.token_secret or config["token_secret"]
    if not token_id or not token_secret:
        raise CloudError(
            "there is no token for Modal",
            code="cloud.token",
            hint="get one with `modal token new`, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET",
        )
    with mapped(), _server(account.url):
        return await modal.Client.from_credentials.aio(token_id, token_secret)


@contextmanager
def _server(url: str | None) -> Iterator[None]:
    """The SDK takes its server from the environment when a client is made, and not again."""
    before = os.environ.get("MODAL_SERVER_URL")
    if url is not None:
        os.environ["MODAL_SERVER_URL"] = url
    try:
        yield
    finally:
        if url is not None:
            os.environ.pop("MODAL_SERVER_URL")
            if before is not None:
                os.environ["MODAL_SERVER_URL"] = before


_ERRORS = (refused.Error, OSError, GRPCError, StreamTerminatedError, ProtocolError, aiohttp.ClientError)
"""The SDK's own, and those of the connections under it: what is larger than 8 KiB goes by HTTP."""

_REFUSALS = (
    refused.ResourceExhaustedError,
    refused.InvalidError,  # and with it ConflictError
    refused.PermissionDeniedError,
    refused.UnimplementedError,
    refused.RequestSizeError,
    refused.SerializationError,
)
"""Of a call that was not made; after any other error of those that have no code here, it may have been."""


@contextmanager
def mapped() -> Iterator[None]:
    """The SDK's errors as ours. :raises CloudError: for each of them."""
    try:
        yield
    except _ERRORS as error:
        raise cloud_error(error) from None


def cloud_error(error: Exception) -> CloudError:
    """The SDK's error in our tree."""
    if isinstance(error, refused.AuthError):
        return CloudError(f"Modal refuses the token: {_words(error)}", code="cloud.token", hint="modal token new")
    if isinstance(error, refused.NotFoundError):
        return CloudError(_words(error), code="cloud.missing", hint="deploy the bench with: gx cloud deploy")
    return CloudError(f"Modal: {type(error).__name__}: {_words(error)}")


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
