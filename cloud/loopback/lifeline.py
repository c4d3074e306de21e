"""Ends a container when its plane is gone. A copy of this file is loaded by the container's interpreter at its start.

The plane holds the other end of the container's stdin. When that closes, however the plane died, the container exits.
Only the container itself is bound so: what it starts doesn't see the variable.
"""

import os
import threading

VARIABLE = "LOOPBACK_LIFELINE"


def _wait() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


if os.environ.pop(VARIABLE, ""):
    threading.Thread(target=_wait, name="lifeline", daemon=True).start()
