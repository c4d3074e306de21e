"""Dicts, Queues and Secrets: keys and values as bytes that nobody here looks into.

Each request is one step of one event loop, so a claim (`put` with `skip_if_exists`) has exactly one winner.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import grpclib
from grpclib.const import Status
from modal_proto import api_pb2

from cloud.loopback.names import Shelf
from cloud.loopback.rpc import Caller, settled

# Modal's guide "Queues": items in one partition.
PARTITION_MAX = 5000


class Dicts:
    """The RPCs of `modal.Dict`."""

    def __init__(self) -> None:
        self._shelf = Shelf[dict[bytes, bytes]]("di", "Dict", lambda _: {})

    async def DictGetOrCreate(
        self, request: api_pb2.DictGetOrCreateRequest, caller: Caller
    ) -> api_pb2.DictGetOrCreateResponse:
        dict_id = self._shelf.open(request.deployment_name, request.object_creation_type)
        self._shelf.get(dict_id).update({entry.key: entry.value for entry in request.data})
        return api_pb2.DictGetOrCreateResponse(
            dict_id=dict_id, metadata=api_pb2.DictMetadata(name=request.deployment_name)
        )

    async def DictHeartbeat(self, request: api_pb2.DictHeartbeatRequest, caller: Caller) -> None:
        self._shelf.get(request.dict_id)

    async def DictDelete(self, request: api_pb2.DictDeleteRequest, caller: Caller) -> None:
        self._shelf.delete(request.dict_id)

    async def DictUpdate(self, request: api_pb2.DictUpdateRequest, caller: Caller) -> api_pb2.DictUpdateResponse:
        store = self._shelf.get(request.dict_id)
        fresh = [entry for entry in request.updates if not (request.if_not_exists and entry.key in store)]
        store.update({entry.key: entry.value for entry in fresh})
        return api_pb2.DictUpdateResponse(created=bool(fresh))

    async def DictGet(self, request: api_pb2.DictGetRequest, caller: Caller) -> api_pb2.DictGetResponse:
        value = self._shelf.get(request.dict_id).get(request.key)
        return api_pb2.DictGetResponse(found=value is not None, value=value)

    async def DictPop(self, request: api_pb2.DictPopRequest, caller: Caller) -> api_pb2.DictPopResponse:
        value = self._shelf.get(request.dict_id).pop(request.key, None)
        return api_pb2.DictPopResponse(found=value is not None, value=value)

    async def DictContains(self, request: api_pb2.DictContainsRequest, caller: Caller) -> api_pb2.DictContainsResponse:
        return api_pb2.DictContainsResponse(found=request.key in self._shelf.get(request.dict_id))

    async def DictLen(self, request: api_pb2.DictLenRequest, caller: Caller) -> api_pb2.DictLenResponse:
        return api_pb2.DictLenResponse(len=len(self._shelf.get(request.dict_id)))

    async def DictClear(self, request: api_pb2.DictClearRequest, caller: Caller) -> None:
        self._shelf.get(request.dict_id).clear()

    async def DictContents(
        self, request: api_pb2.DictContentsRequest, caller: Caller
    ) -> AsyncIterator[api_pb2.DictEntry]:
        for key, value in list(self._shelf.get(request.dict_id).items()):
            yield api_pb2.DictEntry(key=key if request.keys else b"", value=value if request.values else b"")


class Channel:
    """A queue's partitions, numbered items in each, and who waits for one."""

    def __init__(self) -> None:
        self.partitions: dict[bytes, deque[tuple[int, bytes]]] = {}
        self.waiting: list[asyncio.Future[None]] = []
        self.last_entry = 0

    def partition(self, key: bytes) -> deque[tuple[int, bytes]]:
        return self.partitions.setdefault(key, deque())


class Queues:
    """The RPCs of `modal.Queue`."""

    def __init__(self) -> None:
        self._shelf = Shelf[Channel]("qu", "Queue", lambda _: Channel())

    async def QueueGetOrCreate(
        self, request: api_pb2.QueueGetOrCreateRequest, caller: Caller
    ) -> api_pb2.QueueGetOrCreateResponse:
        queue_id = self._shelf.open(request.deployment_name, request.object_creation_type)
        return api_pb2.QueueGetOrCreateResponse(
            queue_id=queue_id, metadata=api_pb2.QueueMetadata(name=request.deployment_name)
        )

    async def QueueHeartbeat(self, request: api_pb2.QueueHeartbeatRequest, caller: Caller) -> None:
        self._shelf.get(request.queue_id)

    async def QueueDelete(self, request: api_pb2.QueueDeleteRequest, caller: Caller) -> None:
        self._shelf.delete(request.queue_id)

    async def QueuePut(self, request: api_pb2.QueuePutRequest, caller: Caller) -> None:
        channel = self._shelf.get(request.queue_id)
        partition = channel.partition(request.partition_key)
        if len(partition) + len(request.values) > PARTITION_MAX:
            raise grpclib.GRPCError(Status.RESOURCE_EXHAUSTED, f"a partition holds at most {PARTITION_MAX} items")
        for value in request.values:
            channel.last_entry += 1
            partition.append((channel.last_entry, value))
        for future in channel.waiting:
            if not future.done():
                future.set_result(None)
        channel.waiting.clear()

    async def QueueGet(self, request: api_pb2.QueueGetRequest, caller: Caller) -> api_pb2.QueueGetResponse:
        channel = self._shelf.get(request.queue_id)
        partition = channel.partition(request.partition_key)
        await self._filled(channel, request.partition_key, 0, request.timeout)
        count = min(len(partition), request.n_values or 1)
        return api_pb2.QueueGetResponse(values=[partition.popleft()[1] for _ in range(count)])

    async def QueueNextItems(
        self, request: api_pb2.QueueNextItemsRequest, caller: Caller
    ) -> api_pb2.QueueNextItemsResponse:
        channel, seen = self._shelf.get(request.queue_id), int(request.last_entry_id or 0)
        await self._filled(channel, request.partition_key, seen, request.item_poll_timeout)
        items = [
            api_pb2.QueueItem(value=value, entry_id=str(entry))
            for entry, value in channel.partition(request.partition_key)
            if entry > seen
        ]
        return api_pb2.QueueNextItemsResponse(items=items)

    async def QueueLen(self, request: api_pb2.QueueLenRequest, caller: Caller) -> api_pb2.QueueLenResponse:
        channel = self._shelf.get(request.queue_id)
        total = sum(map(len, channel.partitions.values()))
        return api_pb2.QueueLenResponse(len=total if request.total else len(channel.partition(request.partition_key)))

    async def QueueClear(self, request: api_pb2.QueueClearRequest, caller: Caller) -> None:
        channel = self._shelf.get(request.queue_id)
        for key in list(channel.partitions) if request.all_partitions else [request.partition_key]:
            channel.partition(key).clear()

    async def _filled(self, channel: Channel, key: bytes, seen: int, timeout_s: float) -> None:
        """Wait until a partition has an entry past `seen`, at most so long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while not any(entry > seen for entry, _ in channel.partition(key)) and loop.time() < until:
            future: asyncio.Future[None] = loop.create_future()
            channel.waiting.append(future)
            await settled(future, until - loop.time())


class Secrets:
    """The RPCs of `modal.Secret`: variables for containers."""

    def __init__(self) -> None:
        self._shelf = Shelf[dict[str, str]]("st", "Secret", lambda _: {})

    def variables(self, secret_id: str) -> dict[str, str]:
        return self._shelf.get(secret_id)

    async def SecretGetOrCreate(
        self, request: api_pb2.SecretGetOrCreateRequest, caller: Caller
    ) -> api_pb2.SecretGetOrCreateResponse:
        secret_id = self._shelf.open(request.deployment_name, request.object_creation_type)
        variables = self._shelf.get(secret_id)
        variables.update(request.env_dict)
        lacking = sorted(set(request.required_keys) - set(variables))
        if lacking:
            raise grpclib.GRPCError(Status.NOT_FOUND, f"Secret '{request.deployment_name}' lacks {', '.join(lacking)}")
        metadata = api_pb2.SecretMetadata(name=request.deployment_name)
        return api_pb2.SecretGetOrCreateResponse(secret_id=secret_id, metadata=metadata)

    async def SecretDelete(self, request: api_pb2.SecretDeleteRequest, caller: Caller) -> None:
        self._shelf.delete(request.secret_id)
