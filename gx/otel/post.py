"""Taking OTLP's bytes to a collector over HTTP, once. What to do when they don't arrive is decided elsewhere.

https://opentelemetry.io/docs/specs/otlp/#otlphttp says which answers are worth another try. No redirect is followed:
what is sent, and where, was written down before; and no proxy of this process's environment, which is not the client's.
"""

from __future__ import annotations

import gzip
import ssl
from typing import NamedTuple

import anyio
import httpx

from gx import __version__
from gx.otel.collector import Receiver

_AGAIN = (429, 502, 503, 504)
"""Statuses after which the same request may be taken."""


class Posted(NamedTuple):
    """How it went: `error` is "" if it arrived; `may_help` says whether to try again. `answer` is the collector's."""

    error: str = ""
    may_help: bool = False
    answer: bytes = b""


def packed(body: bytes, receiver: Receiver) -> bytes:
    """The bytes as they leave."""
    return gzip.compress(body, mtime=0) if receiver.is_gzipped else body


async def post(receiver: Receiver, body: bytes) -> Posted:
    """Post what `packed` made. It takes no longer than the receiver's time-out."""
    headers = {"content-type": "application/x-protobuf", "user-agent": f"gx/{__version__}"}
    headers |= {"content-encoding": "gzip"} if receiver.is_gzipped else {}
    try:
        trust = _trust(receiver)
    except OSError as error:
        return Posted(f"a certificate can't be read: {error.strerror or type(error).__name__}")
    try:
        with anyio.fail_after(receiver.timeout_s):
            async with httpx.AsyncClient(verify=trust, timeout=None, trust_env=False) as client:
                answer = await client.post(receiver.address, content=body, headers=headers | receiver.headers)
    except TimeoutError:
        return Posted(f"nobody answered within {receiver.timeout_s:g} s", may_help=True)
    except (httpx.TransportError, OSError) as error:
        return Posted(f"nobody answered: {type(error).__name__}", may_help=True)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        return Posted(f"it can't be sent: {type(error).__name__}")
    if answer.is_success:
        return Posted(answer=answer.content)
    return Posted(f"answered with status {answer.status_code}", may_help=answer.status_code in _AGAIN)


def _trust(receiver: Receiver) -> ssl.SSLContext | bool:
    if not receiver.certificate and not receiver.client_certificate:
        return True
    context = ssl.create_default_context(cafile=receiver.certificate or None)
    if receiver.client_certificate:
        context.load_cert_chain(receiver.client_certificate, receiver.client_key or None)
    return context
