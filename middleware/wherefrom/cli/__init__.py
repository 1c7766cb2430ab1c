"""The command line: ``wherefrom search``, ``show``, ``tail``, ``compare`` and others."""

from __future__ import annotations

import gc
import sys

from ..exceptions import MissingExtraError

__all__ = ["main"]

_PACKAGES = frozenset({"rich", "typer"})


def main() -> None:
    """Run the command line of this process, and exit."""
    try:
        try:
            # All that is imported stays: to look for garbage among it takes longer than most commands.
            gc.disable()
            from .app import run

            gc.freeze()
            gc.enable()
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in _PACKAGES:
                raise
            sys.exit(f"wherefrom: {MissingExtraError('the command line', 'cli')}")
        run()
    except KeyboardInterrupt:
        sys.exit(130)
