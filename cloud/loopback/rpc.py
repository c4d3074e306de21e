"""From methods named after RPCs to a gRPC service; what a request knows of its caller; how a refusal is said.

A port on 127.0.0.1 is open to every user of the machine, and what is deployed here runs as this one: so each request
needs the plane's own token, or the id of a live container.

A handler is `async def FunctionMap(self, request, caller) -> reply`, or an async generator where Modal streams. What
nobody speaks is answered UNIMPLEMENTED and noted in `unspoken`, so that a gap shows up in the report by name.
"""

from __future__ import annotations

import asyncio
import secrets
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import grpclib
import msgspec
from grpclib.const import Handler, Status
from grpclib.server import Stream
from modal_proto.api_grpc import ModalClientBase

from cloud.loopback.faults import FaultCounter
from cloud.loopback.record import Record

# Containers are told to send it with each request: three of their RPCs name no task.
TASK_HEADER = "x-loop-task-id"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks: a container by its task id, or a client by its token."""

    task_id: str = ""
    token: tuple[str, str] = ("", "")


def new_id(kind: str) -> str:
    """A fresh id with Modal's prefix for its kind: `fc-…` for a function call."""
    return f"{kind}-{secrets.token_hex(10)}"


def not_found(what: str) -> grpclib.GRPCError:
    return grpclib.GRPCError(Status.NOT_FOUND, what)


async def settled(future: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for a future, at most so long: whether it is done. The future itself is never cancelled by the wait."""
    done, _ = await asyncio.wait([future], timeout=seconds)
    return bool(done)


class Service:
    """What grpclib serves: every RPC of Modal's client API, by the part that speaks it."""

    def __init__(
        self,
        parts: Sequence[object],
        faults: FaultCounter,
        is_admitted: Callable[[Caller], bool],
        record: Record | None = None,
    ) -> None:
        self._parts, self._faults, self._is_admitted = parts, faults, is_admitted
        self._record = record or Record()
        self.unspoken: set[str] = set()
        self.broken: list[str] = []

    def __mapping__(self) -> dict[str, Handler]:
        blank: Any = type("Blank", (ModalClientBase,), dict.fromkeys(ModalClientBase.__abstractmethods__))
        handlers: dict[str, Handler] = blank().__mapping__()
        return {path: self._handler(path.rsplit("/", 1)[-1], spec) for path, spec in handlers.items()}

    def _handler(self, name: str, spec: Handler) -> Handler:
        method = next((getattr(part, name) for part in self._parts if hasattr(part, name)), None)

        async def serve(stream: Stream[Any, Any]) -> None:
            caller = Caller(
                task_id=_header(stream, TASK_HEADER),
                token=(_header(stream, "x-modal-token-id"), _header(stream, "x-modal-token-secret")),
            )
            if not self._is_admitted(caller):
                raise grpclib.GRPCError(Status.UNAUTHENTICATED, "expected the token that this loopback gave out")
            if method is None:
                self.unspoken.add(name)
                raise grpclib.GRPCError(Status.UNIMPLEMENTED, f"the loopback doesn't speak {name}")
            request = await stream.recv_message()
            self._record.write(name, stream.metadata, b"" if request is None else request.SerializeToString())
            try:
                if spec.cardinality.server_streaming:
                    async for reply in method(request, caller):
                        self._record.write(f"{name} to {caller.task_id}", None, reply.SerializeToString())
                        await stream.send_message(reply)
                    return
                reply = await method(request, caller) or spec.reply_type()
            except grpclib.GRPCError:
                raise
            except Exception as error:
                self.broken.append(f"{name}: {traceback.format_exc()}")
                raise grpclib.GRPCError(Status.INTERNAL, f"the loopback failed in {name}: {error!r}") from error
            if self._faults.is_lost(name):
                raise grpclib.GRPCError(Status.UNAVAILABLE, f"the reply to {name} was lost, as asked")
            self._record.write(f"{name} to {caller.task_id}", None, reply.SerializeToString())
            await stream.send_message(reply)

        return Handler(serve, spec.cardinality, spec.request_type, spec.reply_type)


def _header(stream: Stream[Any, Any], name: str) -> str:
    metadata = stream.metadata
    return str(metadata.get(name, "")) if metadata else ""
