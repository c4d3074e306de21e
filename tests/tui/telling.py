"""Events as the node's stream has them, made in a test."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from gx.core import event as e


def as_line(body: e.Body, seq: int, ts: int) -> bytes:
    """The line of an event, as `gx.run.log.lines` writes it; `ts` is in µs."""
    time = datetime.fromtimestamp(ts / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    line: dict[str, Any] = {"seq": seq, "time": time, "source": "node:1", "type": e.tag_of(body)}
    line |= {name: value for name in ("run", "task", "attempt", "worker") if (value := getattr(body, name, None))}
    return msgspec.json.encode(line | {"data": msgspec.Raw(e.encode_body(body))})
