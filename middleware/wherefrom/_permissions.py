"""Files that hold what was recorded: made for their owner alone; those that exist keep their mode."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

_OWNER_ONLY: Final = 0o600


def open_private(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file; given to ``open`` as its ``opener``."""
    return os.open(path, flags, _OWNER_ONLY)


def make_private(path: str | os.PathLike[str]) -> None:
    """Make an empty file where there is none."""
    with suppress(FileExistsError):
        # A file that is there is not opened: closing it would drop the locks that SQLite holds on it here.
        os.close(open_private(os.path.realpath(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
