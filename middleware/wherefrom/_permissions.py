"""Files with recorded data: created with access for their owner only; existing ones keep their mode."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

_OWNER_ONLY: Final = 0o600  # traces hold user ids and captured values


def open_private(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file; an ``opener`` for ``open``."""
    return os.open(path, flags, _OWNER_ONLY)


def make_private(path: str | os.PathLike[str]) -> None:
    """Create an empty file if there is none."""
    with suppress(FileExistsError):
        # An existing file is not opened: closing it would drop SQLite's locks on it in this process.
        os.close(open_private(os.path.realpath(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
