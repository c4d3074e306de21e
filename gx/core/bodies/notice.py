"""What was told to a command or an address that the user named: that a run ended, or needs somebody."""

from __future__ import annotations

from gx.core.message import Value


class NoticeLeaves(Value, frozen=True, kw_only=True, tag="egress.notice"):
    """A notice leaves this machine for `to`, a scheme and a host: `bytes` of it, with that digest. Committed before it
    leaves. `fields` are the names of what is in it: counts and ids, and no content.
    """

    run: str
    about: str
    to: str
    fields: tuple[str, ...]
    bytes: int
    digest: str


class NoticeEnded(Value, frozen=True, kw_only=True, tag="notice.ended"):
    """A notice arrived, or, where `error` says why, did not; the run goes on either way.

    `about` is "ended", "cap" or "person"; `to` is "command", or a scheme and a host.
    """

    run: str
    about: str
    to: str
    error: str = ""
