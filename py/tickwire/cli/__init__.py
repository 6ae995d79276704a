"""The `tickwire` command."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line. What is wrong is one readable message on stderr and exit code 2."""
    from tickwire.cli.app import app
    from tickwire.errors import Error

    try:
        app()
    except Error as error:
        print(f"tickwire: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output left. Python would complain once more while it flushes.
        sys.stderr.close()
        sys.exit(141)
