"""Dispatch only: the window without arguments, the command line with them. Each branch imports what it needs."""

from __future__ import annotations

import sys


def main() -> int:
    """Run TuneDesk with the arguments of this process; returns the exit status."""
    try:
        return _dispatch()
    except KeyboardInterrupt:  # while the modules are still being read
        return 130


def _dispatch() -> int:
    arguments = sys.argv[1:]
    if arguments:
        from tunedesk.cli import run

        return run(arguments)
    from tunedesk.display import has_display

    if has_display():
        from tunedesk.gui.app import main as window

        return window([])
    from tunedesk.cli import run_without_display

    return run_without_display()


if __name__ == "__main__":
    sys.exit(main())
