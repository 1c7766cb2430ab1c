"""Reading small files that anyone may have written: bounded, never blocking, one kind of error."""

from __future__ import annotations

import os
import stat
import time
from typing import BinaryIO


class UnreadableError(Exception):
    """Something could not be read; the message is the reason, fit for a user to see."""


class Deadline:
    """When to give up what is asked at start-up, in seconds from now."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Nothing while there is time.

        Raises:
            UnreadableError: there is none left.
        """
        if time.monotonic() > self._end:
            raise UnreadableError(f"comparing files took longer than {self._seconds:g} s")


def open_regular(path: str) -> BinaryIO:
    """A regular file, open for reading.

    Raises:
        UnreadableError: missing, no permission, a symlink loop, or not a regular file.
    """
    try:
        # A pipe in place of the file would block an ordinary open for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise UnreadableError(_reason(path, error)) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise UnreadableError(f"{path} is {'a directory' if stat.S_ISDIR(mode) else 'not a regular file'}")
    return open(descriptor, "rb")


def read_bytes(path: str, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    Raises:
        UnreadableError: as for ``open_regular``, or it is too large.
    """
    try:
        with open_regular(path) as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UnreadableError(_reason(path, error)) from error
    if len(content) > limit:
        raise UnreadableError(f"{path} is larger than {limit} bytes")
    return content


def read_text(path: str, limit: int) -> str:
    """The text of a regular file of at most ``limit`` bytes; undecodable bytes become surrogates.

    Raises:
        UnreadableError: as for ``read_bytes``.
    """
    return read_bytes(path, limit).decode("utf-8", "surrogateescape")


def _reason(path: str, error: Exception) -> str:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{path}: {why}"
