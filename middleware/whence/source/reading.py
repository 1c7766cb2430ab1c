"""Reading small files that anyone may have written: bounded, never blocking, one kind of error."""

from __future__ import annotations

import os
import stat


class UnreadableError(Exception):
    """Something could not be read; the message is the reason, fit for a user to see."""


def read_text(path: str, limit: int) -> str:
    """The text of a regular file of at most ``limit`` bytes; undecodable bytes become surrogates.

    Raises:
        UnreadableError: missing, no permission, a symlink loop, not a regular file, or too large.
    """
    try:
        # A pipe in place of the file would block an ordinary open for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnreadableError(f"{path} is not a regular file")
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise UnreadableError(_reason(path, error)) from error
    if len(content) > limit:
        raise UnreadableError(f"{path} is larger than {limit} bytes")
    return content.decode("utf-8", "surrogateescape")


def _reason(path: str, error: Exception) -> str:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{path}: {why}"
