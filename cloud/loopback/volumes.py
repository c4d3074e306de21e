"""Volumes: folders that clients fill and list, and that containers see at their mount path."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import grpclib
from grpclib.const import Status
from modal_proto import api_pb2

from cloud.loopback.blobs import BLOCK_BYTES, Blobs
from cloud.loopback.contents import Contents, below
from cloud.loopback.names import Shelf
from cloud.loopback.rpc import Caller, not_found

# Files in one batch of a listing.
_BATCH = 500


class Volume:
    """A volume's folder and the version of its protocol: 1 sends whole files, 2 sends blocks."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.version = api_pb2.VOLUME_FS_VERSION_V1
        self.name = ""


class Volumes:
    """The RPCs of `modal.Volume`."""

    def __init__(self, folder: Path, contents: Contents, blobs: Blobs) -> None:
        self._shelf = Shelf("vo", "Volume", lambda volume_id: Volume(folder / volume_id))
        self._contents, self._blobs = contents, blobs

    def folder(self, volume_id: str) -> Path:
        return self._shelf.get(volume_id).folder

    def metadata(self, volume_id: str) -> api_pb2.VolumeMetadata:
        volume = self._shelf.get(volume_id)
        return api_pb2.VolumeMetadata(version=volume.version, name=volume.name)

    async def VolumeGetOrCreate(
        self, request: api_pb2.VolumeGetOrCreateRequest, caller: Caller
    ) -> api_pb2.VolumeGetOrCreateResponse:
        volume_id = self._shelf.open(request.deployment_name, request.object_creation_type)
        volume = self._shelf.get(volume_id)
        if not volume.name:
            volume.name = request.deployment_name
            volume.version = request.version or api_pb2.VOLUME_FS_VERSION_V1
        return api_pb2.VolumeGetOrCreateResponse(
            volume_id=volume_id, version=volume.version, metadata=self.metadata(volume_id)
        )

    async def VolumePutFiles(self, request: api_pb2.VolumePutFilesRequest, caller: Caller) -> None:
        for file in request.files:
            place = self._place(request.volume_id, file.filename, request.disallow_overwrite_existing_files)
            self._contents.write([file.sha256_hex], place)

    async def VolumePutFiles2(
        self, request: api_pb2.VolumePutFiles2Request, caller: Caller
    ) -> api_pb2.VolumePutFiles2Response:
        missing = [
            api_pb2.VolumePutFiles2Response.MissingBlock(
                file_index=n, block_index=m, put_url=f"{self._blobs.url}/block/{block.contents_sha256.hex()}"
            )
            for n, file in enumerate(request.files)
            for m, block in enumerate(file.blocks)
            if not self._contents.has(block.contents_sha256.hex())
        ]
        if not missing:
            for file in request.files:
                place = self._place(request.volume_id, file.path, request.disallow_overwrite_existing_files)
                self._contents.write([block.contents_sha256.hex() for block in file.blocks], place)
        return api_pb2.VolumePutFiles2Response(missing_blocks=missing)

    async def VolumeListFiles(
        self, request: api_pb2.VolumeListFilesRequest, caller: Caller
    ) -> AsyncIterator[api_pb2.VolumeListFilesResponse]:
        for batch in self._listing(request.volume_id, request.path, request.recursive):
            yield api_pb2.VolumeListFilesResponse(entries=batch)

    async def VolumeListFiles2(
        self, request: api_pb2.VolumeListFiles2Request, caller: Caller
    ) -> AsyncIterator[api_pb2.VolumeListFiles2Response]:
        for batch in self._listing(request.volume_id, request.path, request.recursive):
            yield api_pb2.VolumeListFiles2Response(entries=batch)

    async def VolumeGetFile2(
        self, request: api_pb2.VolumeGetFile2Request, caller: Caller
    ) -> api_pb2.VolumeGetFile2Response:
        folder = self.folder(request.volume_id)
        place = below(folder, request.path)
        if not place.is_file():
            raise not_found(f"{request.path}: no such file in the volume")
        size = place.stat().st_size
        url = f"{self._blobs.url}/file/{request.volume_id}/{quote(str(place.relative_to(folder)))}"
        blocks = [f"{url}?start={start}" for start in range(0, size, BLOCK_BYTES)]
        return api_pb2.VolumeGetFile2Response(get_urls=blocks, size=size, start=0, len=size)

    async def VolumeRemoveFile(self, request: api_pb2.VolumeRemoveFileRequest, caller: Caller) -> None:
        self._remove(request.volume_id, request.path, request.recursive)

    async def VolumeRemoveFile2(self, request: api_pb2.VolumeRemoveFile2Request, caller: Caller) -> None:
        self._remove(request.volume_id, request.path, request.recursive)

    async def VolumeCommit(self, request: api_pb2.VolumeCommitRequest, caller: Caller) -> api_pb2.VolumeCommitResponse:
        self.folder(request.volume_id)
        return api_pb2.VolumeCommitResponse()

    async def VolumeReload(self, request: api_pb2.VolumeReloadRequest, caller: Caller) -> None:
        self.folder(request.volume_id)

    async def VolumeHeartbeat(self, request: api_pb2.VolumeHeartbeatRequest, caller: Caller) -> None:
        self.folder(request.volume_id)

    async def VolumeDelete(self, request: api_pb2.VolumeDeleteRequest, caller: Caller) -> None:
        shutil.rmtree(self.folder(request.volume_id), ignore_errors=True)
        self._shelf.delete(request.volume_id)

    def _place(self, volume_id: str, path: str, is_new: bool) -> Path:
        place = below(self.folder(volume_id), path)
        if is_new and place.exists():
            raise grpclib.GRPCError(Status.ALREADY_EXISTS, f"{path}: already exists in the volume")
        return place

    def _listing(self, volume_id: str, path: str, recursive: bool) -> list[list[api_pb2.FileEntry]]:
        folder = self.folder(volume_id)
        place = below(folder, path)
        if not place.exists():
            raise not_found(f"{path}: no such file or folder in the volume")
        found = [place] if place.is_file() else sorted(place.rglob("*") if recursive else place.iterdir())
        entries = [_entry(folder, one) for one in found]
        return [entries[n : n + _BATCH] for n in range(0, len(entries), _BATCH)]

    def _remove(self, volume_id: str, path: str, recursive: bool) -> None:
        place = below(self.folder(volume_id), path)
        if place.is_file():
            place.unlink()
        elif place.is_dir() and recursive:
            shutil.rmtree(place)
        else:
            raise not_found(f"{path}: no such file in the volume")


def _entry(folder: Path, place: Path) -> api_pb2.FileEntry:
    about = place.stat()
    kind = api_pb2.FileEntry.DIRECTORY if place.is_dir() else api_pb2.FileEntry.FILE
    size = 0 if place.is_dir() else about.st_size
    return api_pb2.FileEntry(path=str(place.relative_to(folder)), type=kind, mtime=int(about.st_mtime), size=size)
