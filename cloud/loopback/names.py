"""Objects that have a name or an owner: get it, make it, or refuse, by the creation type that the SDK sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import grpclib
from grpclib.const import Status
from modal_proto import api_pb2

from cloud.loopback.rpc import new_id, not_found

Thing = TypeVar("Thing")


class Shelf(Generic[Thing]):
    """All objects of one kind, by id and by name. `kind` is Modal's prefix, `word` what people call it."""

    def __init__(self, kind: str, word: str, make: Callable[[str], Thing]) -> None:
        self._kind, self._word, self._make = kind, word, make
        self._things: dict[str, Thing] = {}
        self._ids: dict[str, str] = {}

    def open(self, name: str, creation: api_pb2.ObjectCreationType.ValueType) -> str:
        """The id for a request. :raises GRPCError: NOT_FOUND or ALREADY_EXISTS, as its creation type demands."""
        if creation in (api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL, api_pb2.OBJECT_CREATION_TYPE_ANONYMOUS_OWNED_BY_APP):
            return self._add()
        known = self._ids.get(name)
        if known and creation == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            raise grpclib.GRPCError(Status.ALREADY_EXISTS, f"{self._word} '{name}' exists already")
        if known and creation != api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS:
            return known
        if not known and creation == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
            raise not_found(f"{self._word} '{name}' not found")
        self._ids[name] = self._add()
        return self._ids[name]

    def get(self, thing_id: str) -> Thing:
        """:raises GRPCError: NOT_FOUND, if there is none."""
        try:
            return self._things[thing_id]
        except KeyError:
            raise not_found(f"{self._word} {thing_id} not found") from None

    def delete(self, thing_id: str) -> None:
        self._things.pop(thing_id, None)
        self._ids = {name: known for name, known in self._ids.items() if known != thing_id}

    def _add(self) -> str:
        thing_id = new_id(self._kind)
        self._things[thing_id] = self._make(thing_id)
        return thing_id
