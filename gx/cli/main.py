"""The `gx` command: from the first moment to the exit code. What goes wrong ends in one message, never in a traceback.

It loads nothing before it can answer a Ctrl-C; the verbs are in `gx.cli.app`.
"""

from __future__ import annotations

import os
import sys

from gx.cli import interrupt


def main() -> None:
    """Run the command line, and exit."""
    interrupt.leave_at_once()
    _fill_closed_streams()
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(interrupt.STATUS)
    finally:
        interrupt.leave_at_once()


def _run() -> None:
    from gx import output
    from gx.cli.app import app
    from gx.core.errors import GxError, UsageError

    try:
        app(prog_name="gx")
    except GxError as error:
        output.show_error(error)
        sys.exit(output.exit_code_of(error))
    except UnicodeEncodeError as error:
        output.show_error(UsageError(f"expected UTF-8 on the command line, got {error.object!a}"))
        sys.exit(output.ExitCode.usage)
    except RuntimeError as error:
        if str(error) != "Query interrupted":  # what DuckDB makes of a KeyboardInterrupt
            raise
        sys.exit(output.ExitCode.interrupted)


def _fill_closed_streams() -> None:
    """Open what the caller closed (`>&-`) on /dev/null, before the log gets one of those numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()
