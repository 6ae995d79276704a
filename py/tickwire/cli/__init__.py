"""The `tickwire` command."""

from __future__ import annotations

import contextlib
import sys

__all__ = ["main"]

# Of sysexits.h: something could not be written.
_NOT_WRITTEN = 74


def main() -> None:
    """Runs the command line. What is wrong is one readable message on stderr and exit code 2."""
    from tickwire.cli import signals, streams

    try:
        signals.prepare()
        streams.prepare()
        code = _run()
    except signals.Ended as ended:
        # A second one would find nothing left to put in order.
        signals.default()
        with contextlib.suppress(ValueError):
            print(f"tickwire: ended by {ended.name}", file=sys.stderr)
        code = int(str(ended.code))
    except KeyboardInterrupt:
        code = 130
    if (error := streams.lost()) is not None:
        if streams.reader_left(error):
            code = code or 141
        else:
            print(f"tickwire: standard output: {error.strerror}; what came after is lost", file=sys.stderr)
            code = code or _NOT_WRITTEN
    sys.exit(code)


def _run() -> int:
    from tickwire.errors import Error

    try:
        from tickwire.cli.app import app

        app()
    except Error as error:
        print(f"tickwire: {error}", file=sys.stderr)
        return 2
    except SystemExit as exit_:
        from tickwire.cli import signals

        if isinstance(exit_, signals.Ended):
            raise
        if exit_.code is None or isinstance(exit_.code, int):
            return exit_.code or 0
        print(exit_.code, file=sys.stderr)
        return 1
    return 0
