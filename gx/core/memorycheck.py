"""What can be remembered, asked and named, and what can't: the first that is wrong is told."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from gx.core.errors import UsageError
from gx.core.memory import Draft, Filter, Query

MOST_BODY_CHARS = 1 << 20
MOST_HITS = 1000
_NAMESPACE = re.compile(r"[\w@][\w@./:+-]{0,99}")
_UID = re.compile(r"[0-9a-f]{4,16}")
_LONGEST_SOURCE = 4096
_TEXTS = ("by", "path", "heading", "run", "task", "sha256")


def check_draft(draft: Draft) -> None:
    """:raises UsageError: naming what can't be remembered so."""
    check_namespace(draft.namespace)
    body, source = draft.body, draft.source
    if not body.strip():
        raise UsageError("a memory: expected text, got nothing but space")
    if len(body) > MOST_BODY_CHARS:
        raise UsageError(
            f"a memory: expected at most {MOST_BODY_CHARS:,} characters, got {len(body):,}", hint="split it"
        )
    for name, text in (("text", body), *((name, getattr(source, name)) for name in _TEXTS)):
        if "\0" in text or not _is_utf8(text):
            raise UsageError(f"a memory's {name}: expected text in UTF-8 without NUL, got {text[:40]!a}")
        if name != "text" and len(text) > _LONGEST_SOURCE:
            raise UsageError(f"a memory's {name}: expected at most {_LONGEST_SOURCE} characters, got {len(text):,}")
    for name, count in (("ordinal", source.ordinal), ("page", source.page)):
        if count is not None and not 0 <= count < 1 << 53:
            raise UsageError(f"a memory's {name}: expected a number from 0, got {count}")
    if draft.at is not None and not (math.isfinite(draft.at) and abs(draft.at) < 1e11):
        raise UsageError(f"a memory's time: expected seconds since 1970, got {draft.at}")


def check_namespace(name: str) -> None:
    """:raises UsageError: if no namespace can be called so."""
    if _NAMESPACE.fullmatch(name) is None or not _is_utf8(name):
        raise UsageError(
            f"a namespace: expected up to 100 letters, digits or any of _@./:+-, got {name[:120]!a}",
            hint="such as: projects/acme",
        )


def check_names(uids: Sequence[str]) -> None:
    """:raises UsageError: if one can't be a memory's name, or the start of one."""
    for uid in uids:
        if _UID.fullmatch(uid) is None:
            raise UsageError(f"a memory's name: expected 4 to 16 hex digits, got {uid[:60]!a}")


def check_query(query: Query) -> None:
    """:raises UsageError: naming what can't be asked."""
    if not 1 <= query.k <= MOST_HITS:
        raise UsageError(f"k: expected 1 to {MOST_HITS}, got {query.k}")
    if not query.text.strip() or not _is_utf8(query.text):
        raise UsageError(f"a search: expected words to look for, got {query.text[:40]!a}")
    if not 0.0 <= query.min_score <= 1.0:
        raise UsageError(f"min_score: expected 0 to 1, got {query.min_score:g}")
    if query.min_similarity is not None and not -1.0 <= query.min_similarity <= 1.0:
        raise UsageError(f"min_similarity: expected -1 to 1, got {query.min_similarity:g}")
    check_filter(query)


def check_filter(wanted: Filter) -> None:
    """:raises UsageError: naming what no memory can be."""
    if wanted.namespace is not None:
        check_namespace(wanted.namespace)
    if "\0" in wanted.source or not _is_utf8(wanted.source):
        raise UsageError(f"source: expected text in UTF-8, got {wanted.source[:40]!a}")
    for name, at in (("since", wanted.since), ("until", wanted.until)):
        if at is not None and not math.isfinite(at):
            raise UsageError(f"{name}: expected seconds since 1970, got {at}")
    if wanted.upto_seq is not None and not -1 <= wanted.upto_seq < 1 << 62:
        raise UsageError(f"upto_seq: expected the number of an event, got {wanted.upto_seq}")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
