"""Facts about a process with their origin, and bounded reading of files."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import BinaryIO, Final

from .._clock import monotonic

MAX_KEY_LENGTH: Final = 250
"""Characters of a metadata key; MLflow's own limit."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One metadata key of the process.

    ``value`` is ``None`` if the key is absent. ``origin`` says where the value was found, such as
    ``env APP_VERSION``. ``note`` says why there is no value, or qualifies it.
    """

    key: str
    value: str | None
    origin: str = ""
    note: str = ""

    def cleaned(self, max_length: int) -> Fact:
        """Return the fact with encodable texts, its value stripped and truncated to ``max_length``."""
        return Fact(
            clean(self.key, MAX_KEY_LENGTH),
            clean(self.value or "", max_length) or None,
            encodable(self.origin),
            encodable(self.note),
        )


def clean(text: str, max_length: int) -> str:
    """``text`` encodable, stripped, and truncated to ``max_length`` characters with ``...`` at the end."""
    text = encodable(text).strip()
    if len(text) <= max_length:
        return text
    return text[: max(0, max_length - 3)] + "..."[:max_length]


def encodable(text: str) -> str:
    r"""``text`` with lone surrogates (undecodable bytes of a path or variable) written as ``\udc..``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _argv() -> Sequence[str]:
    return tuple(map(str, getattr(sys, "argv", ())))  # an interpreter embedded in another program may lack it


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:  # the working directory was deleted
        return ""


def _uid() -> int | None:
    return os.getuid() if hasattr(os, "getuid") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The inputs of detection. Each field defaults to the value of this process.

    ``argv`` and ``orig_argv`` are those of ``sys``. A module is searched in ``modules`` and ``path`` without
    importing it. ``uid`` is ``None`` on systems without user ids.
    """

    argv: Sequence[str] = field(default_factory=_argv)
    orig_argv: Sequence[str] = field(default_factory=lambda: tuple(sys.orig_argv))
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: str = field(default_factory=_cwd)
    main_module: ModuleType | None = field(default_factory=lambda: sys.modules.get("__main__"))
    modules: Mapping[str, ModuleType] = field(default_factory=lambda: sys.modules)
    path: Sequence[str] = field(default_factory=lambda: tuple(sys.path))
    uid: int | None = field(default_factory=_uid)

    def absolute(self, path: str) -> str:
        """Return ``path`` as an absolute path, relative to this process's working directory."""
        return os.path.normpath(os.path.join(self.cwd, path))


class UnreadableError(Exception):
    """Something could not be read; the message is a reason to show to users."""


class Deadline:
    """A deadline for work at start-up, ``seconds`` from now."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = monotonic() + seconds

    def check(self) -> None:
        """Do nothing before the deadline.

        Raises:
            UnreadableError: the deadline has passed.
        """
        if monotonic() > self._end:
            raise UnreadableError(f"comparing files took longer than {self._seconds:g} s")


def open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        UnreadableError: missing, no permission, a symlink loop, or not a regular file.
    """
    try:
        # An ordinary open of a named pipe would block for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise UnreadableError(_reason(path, error)) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise UnreadableError(f"{path} is {'a directory' if stat.S_ISDIR(mode) else 'not a regular file'}")
    return open(descriptor, "rb")


def read_bytes(path: str, limit: int) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes.

    Raises:
        UnreadableError: as for ``open_regular``, or the file is too large.
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
    """Return the text of a regular file of at most ``limit`` bytes; undecodable bytes become surrogates.

    Raises:
        UnreadableError: as for ``read_bytes``.
    """
    return read_bytes(path, limit).decode("utf-8", "surrogateescape")


def _reason(path: str, error: Exception) -> str:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{path}: {why}"
