"""Mounts and images: which files and variables a container gets. Images are described here and never built.

Of an image two kinds of commands are understood: `ENV` sets variables, and `COPY . path` copies its context mount. All
others are taken as done, since the containers' interpreter stands for what they would install.
"""

from __future__ import annotations

import platform
import posixpath
import shlex
from pathlib import Path

from modal_proto import api_pb2

from cloud.loopback.blobs import Blobs
from cloud.loopback.contents import Contents, below
from cloud.loopback.names import Shelf
from cloud.loopback.rpc import Caller, new_id, not_found

# The newest one that modal 1.6.4 takes without asking for a preview (modal/builder).
BUILDER_VERSION = "2025.06"


class Images:
    """The RPCs of mounts and images, and the unpacking of both."""

    def __init__(self, contents: Contents, blobs: Blobs) -> None:
        self._contents, self._blobs = contents, blobs
        self._mounts = Shelf[list[api_pb2.MountFile]]("mo", "Mount", lambda _: [])
        self._images: dict[str, api_pb2.Image] = {}

    async def MountBatchedCheckExistence(
        self, request: api_pb2.MountBatchedCheckExistenceRequest, caller: Caller
    ) -> api_pb2.MountBatchedCheckExistenceResponse:
        missing = [sha256 for sha256 in request.sha256_hex_hashes if not self._contents.has(sha256)]
        return api_pb2.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)

    async def MountPutFile(self, request: api_pb2.MountPutFileRequest, caller: Caller) -> api_pb2.MountPutFileResponse:
        sent = request.WhichOneof("data_oneof")
        if sent == "data_blob_id" and not self._contents.has(request.sha256_hex):
            self._contents.adopt(self._blobs.file(request.data_blob_id), request.sha256_hex)
        elif sent == "data":
            self._contents.put(request.data, request.sha256_hex)
        return api_pb2.MountPutFileResponse(exists=self._contents.has(request.sha256_hex))

    async def MountGetOrCreate(
        self, request: api_pb2.MountGetOrCreateRequest, caller: Caller
    ) -> api_pb2.MountGetOrCreateResponse:
        creation = request.object_creation_type
        if not request.files and creation == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
            # The SDK's own source, which Modal keeps for it: here it is among the packages.
            creation = api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING
        mount_id = self._mounts.open(request.deployment_name, creation)
        if request.files:
            self._mounts.get(mount_id)[:] = request.files
        return api_pb2.MountGetOrCreateResponse(
            mount_id=mount_id,
            handle_metadata=api_pb2.MountHandleMetadata(content_checksum_sha256_hex="0" * 64),
        )

    async def ImageGetOrCreate(
        self, request: api_pb2.ImageGetOrCreateRequest, caller: Caller
    ) -> api_pb2.ImageGetOrCreateResponse:
        image_id = new_id("im")
        self._images[image_id] = request.image
        return api_pb2.ImageGetOrCreateResponse(
            image_id=image_id,
            result=api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS),
            metadata=api_pb2.ImageMetadata(
                python_version_info=platform.python_version(), image_builder_version=request.builder_version
            ),
        )

    def variables(self, image_id: str) -> dict[str, str]:
        """What the `ENV` commands of an image and its bases set."""
        found: dict[str, str] = {}
        for image in self._layers(image_id):
            for command in image.dockerfile_commands:
                word, _, rest = command.strip().partition(" ")
                if word.upper() == "ENV":
                    found.update(dict(part.split("=", 1) for part in shlex.split(rest) if "=" in part))
        return found

    def unpack(self, image_id: str, mount_ids: list[str], root: Path) -> None:
        """Put the files of an image and of the mounts below `root`. :raises GRPCError: if one leaves that folder."""
        for image in self._layers(image_id):
            for command in image.dockerfile_commands:
                words = command.split()
                if image.context_mount_id and [word.upper() for word in words[:2]] == ["COPY", "."]:
                    self._place(image.context_mount_id, root, words[2])
        for mount_id in mount_ids:
            self._place(mount_id, root, "/")

    def _layers(self, image_id: str) -> list[api_pb2.Image]:
        """An image and its bases, the lowest first."""
        if not image_id:
            return []
        if image_id not in self._images:
            raise not_found(f"Image {image_id} not found")
        image = self._images[image_id]
        return [layer for base in image.base_images for layer in self._layers(base.image_id)] + [image]

    def _place(self, mount_id: str, root: Path, prefix: str) -> None:
        for file in self._mounts.get(mount_id):
            place = below(root, posixpath.join(prefix, file.filename.lstrip("/")))
            if not place.exists():
                self._contents.link(file.sha256_hex, place)
