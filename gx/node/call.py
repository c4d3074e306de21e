"""A client's side of the node's socket: one request, one answer, or lines as they come.

It uses the standard library's HTTP, which loads in a few milliseconds: `gx ps` in a loop must cost nothing.
"""

from __future__ import annotations

import contextlib
import getpass
import http.client
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from gx.core.errors import GxError, WorkspaceError
from gx.node import problem
from gx.node.address import socket_path

PATIENCE_S = 30.0
"""A node that says nothing for so long, where an answer is due at once, is taken for dead."""
_BLOCK_BYTES = 1 << 18


class NodeGone(WorkspaceError):
    """The node isn't there, or went away in the middle of an answer: `why`, in the system's words."""

    code = "workspace.gone"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the node went away: {why}",
            hint="nobody knows whether it was done: `gx ps` shows how things stand, then ask again",
        )
        self.why = why


class Client:
    """Speaks to the node of the workspace in `folder`. Each request has a connection of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"<Client {self.folder}>"

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        kind: Any = dict[str, Any],
        timeout_s: float | None = PATIENCE_S,
        **query: Any,
    ) -> Any:
        """The answer, as a `kind`. :raises GxError: what the node refuses. :raises NodeGone: if there is none."""
        connection = _Connection(self.folder, timeout_s)
        try:
            content = None if body is None else problem.encode(body)
            connection.request(method, _url(path, query), body=content, headers=_HEADERS)
            answer = connection.getresponse()
            return problem.decode(_checked(answer).read(), kind)
        except (OSError, http.client.HTTPException) as error:
            raise NodeGone(str(error)) from error
        finally:
            connection.close()

    def lines(self, path: str, **query: Any) -> Iterator[bytes]:
        """The lines of an answer as they come. :raises GxError: as `ask`. :raises NodeGone: as `ask`."""
        connection = _Connection(self.folder, None)
        try:
            connection.request("GET", _url(path, query), headers=_HEADERS)
            answer = _checked(connection.getresponse())
            while line := answer.readline():
                if not line.endswith(b"\n"):
                    raise NodeGone("in the middle of a line")
                yield line
        except (OSError, http.client.HTTPException) as error:
            raise NodeGone(str(error)) from error
        finally:
            connection.close()

    def stream(self, path: str, **query: Any) -> Stream:
        """An answer's lines as they come, many at a time. :raises GxError: as `ask`. :raises NodeGone: as `ask`."""
        return Stream(_Connection(self.folder, None), _url(path, query))

    def send(self, path: str, chunks: Iterable[bytes]) -> None:
        """Send bytes as they come, until they end or the node wants no more. :raises NodeGone: if it went away."""
        connection = _Connection(self.folder, None)
        try:
            connection.request("PUT", path, body=chunks, headers=_HEADERS, encode_chunked=True)
            _checked(connection.getresponse()).read()
        except (OSError, http.client.HTTPException) as error:
            raise NodeGone(str(error)) from error
        finally:
            connection.close()


class Stream:
    """An answer's lines, read in blocks: a line each costs ten times as much. Another thread may close it."""

    def __init__(self, connection: _Connection, url: str) -> None:
        self._connection = connection
        try:
            connection.request("GET", url, headers=_HEADERS)
            self._answer = _checked(connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise NodeGone(str(error)) from error

    def __iter__(self) -> Iterator[list[bytes]]:
        """Blocks of whole lines, none of them empty, until the answer ends. :raises NodeGone: if the node went away."""
        rest = b""
        try:
            while block := self._answer.read1(_BLOCK_BYTES):
                *lines, rest = (rest + block).split(b"\n")
                if lines:
                    yield lines
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise NodeGone(str(error)) from error
        finally:
            self._connection.close()
        if rest:
            raise NodeGone("in the middle of a line")

    def close(self) -> None:
        """End it; who iterates gets no more."""
        if self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)


def find(folder: Path) -> Client | None:
    """A client of the node that is up, `None` if there is none.

    :raises WorkspaceError: if it is another user's.
    """
    probe = _Connection(folder, PATIENCE_S)
    try:
        probe.connect()
    except PermissionError:
        raise WorkspaceError(
            f"the workspace {folder} is in use by another user",
            code="workspace.foreign",
            hint="choose a folder of your own with `--workspace DIR` or GX_WORKSPACE",
        ) from None
    except OSError:
        return None
    finally:
        probe.close()
    return Client(folder)


def who_asks() -> str:
    """Who this process is, for the log: a user and a process."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = f"user {os.getuid()}"
    return f"{user}, process {os.getpid()}"


_HEADERS = {"content-type": "application/json", "gx-by": who_asks().encode("ascii", "replace").decode()}


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, folder: Path, timeout_s: float | None) -> None:
        super().__init__("gx", timeout=timeout_s)
        self._path = str(socket_path(folder))

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _checked(answer: http.client.HTTPResponse) -> http.client.HTTPResponse:
    if answer.status < 400:
        return answer
    content = answer.read()
    try:
        found = problem.decode(content, problem.Problem)
    except ValueError:
        raise GxError(f"the node answered {answer.status}: {content[:200]!r}", code="node") from None
    raise problem.error_of(found)


def _url(path: str, query: dict[str, Any]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return quote(path) + ("?" + urlencode(given) if given else "")
