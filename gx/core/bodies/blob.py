"""Content beside the log, and how an event names it."""

from __future__ import annotations

from gx.core.message import Label, Value

Ref = str
"""The digest of a blob: 32 hex digits."""


class Blob(Value, frozen=True, kw_only=True):
    """Content beside the log: `digest` is `ids.digest(content)`."""

    digest: Ref
    content: bytes
    label: Label = Label.shared
