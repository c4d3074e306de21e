"""Payloads over HTTP: what is too large for a message, the blocks of volumes, and the files read from them.

Stands for Modal's object storage. The SDK checks that the ETag of an upload is the MD5 of what it sent.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from aiohttp import web
from modal_proto import api_pb2

from cloud.loopback.contents import Contents
from cloud.loopback.record import Record
from cloud.loopback.rpc import Caller, new_id, not_found

_CHUNK_BYTES = 1 << 20
# A file of a volume is sent and read in blocks of this size (modal/_utils/blob_utils.py, BLOCK_SIZE).
BLOCK_BYTES = 8 << 20


class Blobs:
    """Blobs as files, and the small HTTP server that takes and gives them. `url` is set once it serves."""

    def __init__(self, folder: Path, contents: Contents, volumes: Path, record: Record) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._contents, self._volumes, self._record = folder, contents, volumes, record
        self._runner: web.AppRunner | None = None
        self.url = ""
        self.uploaded_bytes = 0

    async def start(self) -> None:
        """Serve on a free port of 127.0.0.1."""
        app = web.Application(client_max_size=2 * BLOCK_BYTES)
        app.on_response_prepare.append(self._recorded)
        app.router.add_put("/blob/{id}", self._put_blob)
        app.router.add_get("/blob/{id}", self._get_blob)
        app.router.add_put("/block/{sha256}", self._put_block)
        app.router.add_get("/file/{volume}/{path:.*}", self._get_file)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def file(self, blob_id: str) -> Path:
        """:raises GRPCError: NOT_FOUND, if it was never uploaded."""
        path = self._folder / Path(blob_id).name
        if not path.exists():
            raise not_found(f"blob {blob_id} not found")
        return path

    async def BlobCreate(self, request: api_pb2.BlobCreateRequest, caller: Caller) -> api_pb2.BlobCreateResponse:
        blob_id = new_id("bl")
        urls = api_pb2.UploadUrlList(items=[f"{self.url}/blob/{blob_id}"])
        return api_pb2.BlobCreateResponse(blob_ids=[blob_id], upload_urls=urls)

    async def BlobGet(self, request: api_pb2.BlobGetRequest, caller: Caller) -> api_pb2.BlobGetResponse:
        self.file(request.blob_id)
        return api_pb2.BlobGetResponse(download_url=f"{self.url}/blob/{request.blob_id}")

    async def _recorded(self, request: web.Request, response: web.StreamResponse) -> None:
        self._record.write(f"{request.method} {request.path_qs}", request.headers)

    async def _put_blob(self, request: web.Request) -> web.Response:
        path = self._folder / Path(request.match_info["id"]).name
        md5 = hashlib.md5(usedforsecurity=False)
        with path.with_suffix(".part").open("wb") as out:
            async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
                md5.update(chunk)
                out.write(chunk)
                self.uploaded_bytes += len(chunk)
        path.with_suffix(".part").replace(path)
        return web.Response(headers={"ETag": f'"{md5.hexdigest()}"'})

    async def _get_blob(self, request: web.Request) -> web.StreamResponse:
        path = self._folder / Path(request.match_info["id"]).name
        return web.FileResponse(path) if path.exists() else web.Response(status=404)

    async def _put_block(self, request: web.Request) -> web.Response:
        data = await request.read()
        self._contents.put(data, request.match_info["sha256"])
        self.uploaded_bytes += len(data)
        return web.Response(body=b"stored")

    async def _get_file(self, request: web.Request) -> web.StreamResponse:
        root = self._volumes / request.match_info["volume"]
        path = (root / request.match_info["path"]).resolve()
        if not (path.is_relative_to(root.resolve()) and path.is_file()):
            return web.Response(status=404)
        with path.open("rb") as file:
            file.seek(int(request.query.get("start", "0")))
            return web.Response(body=file.read(BLOCK_BYTES))
