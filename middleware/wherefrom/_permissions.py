"""Files with recorded data: their mode, their paths, and whether this user can write them.

They are created with access for their owner only; existing files keep their mode.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
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


def unwritable(path: Path) -> Path | None:
    """The path that this user cannot write: the file, or the closest folder that exists; else ``None``.

    The folder must be writable too, because a store creates further files beside its file.
    """
    if path.exists() and not os.access(path, os.W_OK):
        return path
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return None if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK) else folder


def data_path(path: str | os.PathLike[str]) -> Path:
    """The absolute path of a file, whose name may begin with ``~`` or ``~user``.

    Raises:
        ValueError: there is no such user, or no home directory.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{os.fspath(path)!r} cannot be used: {error}") from None
