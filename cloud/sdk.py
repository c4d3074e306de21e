"""Modal's SDK as it is loaded, which may fail: it reads its configuration while it is imported.

It knows no SDK itself. Whoever imports a module that imports the SDK does so in `loading`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO

from gx.core.errors import CloudError
from gx.core.extras import installing


@contextmanager
def loading() -> Iterator[None]:
    """:raises CloudError: if what the block imports needs the SDK, and that isn't installed or can't be loaded."""
    try:
        with redirect_stdout(StringIO()):  # where it can't be loaded, the SDK prints whom to write to
            yield
    except ImportError:
        raise CloudError(
            "gx was installed without what it needs to rent", code="cloud.sdk", hint=installing("cloud")
        ) from None
    except Exception as error:  # noqa: BLE001 - where the SDK can't be imported, its errors can't be either
        raise CloudError(
            f"Modal's SDK can't be loaded: {' '.join(str(error).split())}",
            code="cloud.sdk",
            hint="mend its configuration, or move it away: `modal token new` writes another",
        ) from None
