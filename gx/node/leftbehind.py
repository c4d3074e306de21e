"""The runs that a node which died left behind: those that need no client go on, the others wait for theirs.

A client that comes back submits its run again, and so takes it up. Invariant: what is neither taken up nor ended by
somebody is interrupted, at the latest when this node leaves, and is resumed when it is asked for.
"""

from __future__ import annotations

import anyio
import msgspec

from gx.core.errors import GxError
from gx.node import liveruns, recorded
from gx.node.local import LocalNode


class LeftBehind:
    """What the last node of this one's workspace left behind."""

    def __init__(self, node: LocalNode) -> None:
        self._node = node
        self._unattended: list[str] = []

    async def take_up(self) -> None:
        """Go on with the runs that need no client, and interrupt the others, unless their clients come back."""
        node, left = self._node, self._node.log.live_runs()
        self._unattended = [run_id for run_id, _, is_detached in left if not is_detached]
        for run_id in (run_id for run_id, _, is_detached in left if is_detached):
            try:
                await node.submit(recorded.asked(node.log, run_id))
            except (GxError, KeyError, msgspec.MsgspecError) as error:  # as one that another version wrote
                await node.interrupt_left([run_id], str(error))
        if left:
            await anyio.sleep(liveruns.REATTACH_S)
            await self.let_go()

    async def let_go(self) -> None:
        """Interrupt those that nobody came back for."""
        unattended, self._unattended = self._unattended, []
        gone = [run_id for run_id in unattended if run_id not in self._node.view.runs]
        if gone:
            await self._node.interrupt_left(gone, "its node died, and its client did not come back")
