"""Files with recorded data: created with access for their owner only; existing ones keep their mode."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Final

_OWNER_ONLY: Final = 0o600  # traces hold user ids and captured values


def open_private(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file; an ``opener`` for ``open``."""
    return os.open(path, flags, _OWNER_ONLY)


def is_shared(path: str | os.PathLike[str]) -> bool:
    """Whether the group or others may read a file; false where there is none, or modes say nothing."""
    try:
        return os.name == "posix" and bool(os.stat(path).st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False


def make_private(path: str | os.PathLike[str]) -> None:
    """Create an empty file if there is none."""
    with suppress(FileExistsError):
        # An existing file is not opened: closing it would drop SQLite's locks on it in this process.
        os.close(open_private(os.path.realpath(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
