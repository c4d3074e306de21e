"""What became of the files since they were last read. Pure: two lists in, four lists out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePath

from edge.knowledge.document import Skipped
from edge.knowledge.walk import Found
from gx.core.message import Value


class Changes(Value, frozen=True, kw_only=True):
    """Files by what became of them. `removed` are paths; what is known of a skipped file is left as it is."""

    new: tuple[Found, ...] = ()
    changed: tuple[Found, ...] = ()
    unchanged: tuple[Found, ...] = ()
    removed: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()


def changes(
    seen: Iterable[Found | Skipped], known: Mapping[str, str], *, roots: Collection[str] | None = None
) -> Changes:
    """Compare what was walked with what is known, path → SHA-256; each list in the order of its source.

    A known file counts as removed if it wasn't seen, stands at or below one of the `roots` (`None`: wherever it
    stands), and neither it nor a folder above it was skipped: what can't be read now may be readable again.
    """
    new, changed, unchanged, skipped = [], [], [], []
    for one in seen:
        if isinstance(one, Skipped):
            skipped.append(one)
        elif one.path not in known:
            new.append(one)
        elif known[one.path] == one.sha256:
            unchanged.append(one)
        else:
            changed.append(one)
    here = {one.path for one in (*changed, *unchanged)}
    unread = {one.path for one in skipped}
    removed = [
        path
        for path in known
        if path not in here and (roots is None or _is_below(path, roots)) and not _is_below(path, unread)
    ]
    return Changes(
        new=tuple(new),
        changed=tuple(changed),
        unchanged=tuple(unchanged),
        removed=tuple(removed),
        skipped=tuple(skipped),
    )


def _is_below(path: str, places: Collection[str]) -> bool:
    """Whether the path is one of the places, or stands below one."""
    return path in places or any(str(folder) in places for folder in PurePath(path).parents)
