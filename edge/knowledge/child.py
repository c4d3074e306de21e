"""python -m edge.knowledge.child: reads one file after another for `Extractor`, under limits that end it.

It talks frames over its stdin and stdout: a path in, a reply out. Whatever a file does to it is done to this process
alone, which has no more memory than it was given, writes no file, and goes when its stdin closes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import stat
import sys
import time
from pathlib import Path, PurePath
from typing import BinaryIO

import msgspec

from edge.frames import HEADER_BYTES, MAX_BODY_BYTES
from edge.knowledge.document import Document, Draft, Limits, Skipped, Unreadable
from edge.knowledge.formats import FORMATS, format_of
from gx.core.extras import installing
from gx.core.message import Value


class Reply(Value, frozen=True, kw_only=True):
    """What became of a file: one of the two. `is_last` is said by a process that will read no other one."""

    document: Document | None = None
    skipped: Skipped | None = None
    is_last: bool = False


def main() -> None:
    """Serve until stdin closes. The argument is `Limits` as JSON."""
    limits = msgspec.json.decode(sys.argv[1], type=Limits)
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints mustn't get among the frames
    _confine(limits)
    while path := _receive(requests):
        _grant_cpu(limits.cpu_s)
        reply = read(path, limits)
        body = msgspec.msgpack.encode(reply)
        if len(body) > MAX_BODY_BYTES:
            body = msgspec.msgpack.encode(Reply(skipped=Skipped(path=path, reason="it has too many sections")))
        replies.write(len(body).to_bytes(HEADER_BYTES, "big") + body)
        replies.flush()
        if reply.is_last:
            return


def read(path: str, limits: Limits) -> Reply:
    """Read a file by the format that its name promises."""
    try:
        return Reply(document=_document(path, limits))
    except Unreadable as error:
        return Reply(skipped=Skipped(path=path, reason=str(error)))
    except OSError as error:
        return Reply(skipped=Skipped(path=path, reason=f"it can't be read: {error.strerror or error}"))
    except MemoryError:
        reason = f"reading it takes more than {limits.memory_bytes:,} bytes of memory"
        return Reply(skipped=Skipped(path=path, reason=reason), is_last=True)
    except ImportError as error:
        reason = f"{error.name} is not installed: {installing('knowledge')}"
        return Reply(skipped=Skipped(path=path, reason=reason))
    except Exception as error:  # noqa: BLE001 - a library may raise anything, and a file is no reason to die
        words = str(error).partition("\n")[0][:200].encode("utf-8", "replace").decode()
        return Reply(skipped=Skipped(path=path, reason=f"it can't be read: {type(error).__name__}: {words}"))


def _document(path: str, limits: Limits) -> Document:
    name = format_of(path)
    if name is None:
        raise Unreadable(f"files of the kind {PurePath(path).suffix} are not read")
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Unreadable("it is not a file")
        raw = file.read(limits.file_bytes + 1)
    if len(raw) > limits.file_bytes:
        raise Unreadable(f"it has more than {limits.file_bytes:,} bytes")
    if not raw:
        raise Unreadable("it is empty")
    draft = Draft(limits.text_chars)
    FORMATS[name](raw, draft)
    return draft.document(path, PurePath(path).name, name, hashlib.sha256(raw).hexdigest())


def _confine(limits: Limits) -> None:
    """Limits that hold for the life of the process. What a system doesn't know (macOS: address space) is left out."""
    used_bytes = 0
    with contextlib.suppress(OSError):
        used_bytes = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    most_bytes = used_bytes + limits.memory_bytes
    for what, most in (("RLIMIT_AS", most_bytes), ("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", 0)):
        with contextlib.suppress(ValueError, OSError, AttributeError):
            resource.setrlimit(getattr(resource, what), (most, most))


def _grant_cpu(cpu_s: int) -> None:
    """So much more processor time; behind it the system ends the process (SIGXCPU)."""
    soft = int(time.process_time()) + 1 + cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _receive(requests: BinaryIO) -> str | None:
    head = requests.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES:
        return None
    return requests.read(int.from_bytes(head, "big")).decode()


if __name__ == "__main__":
    main()
