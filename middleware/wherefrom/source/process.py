"""What a process can tell about its own start."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType


def _argv() -> Sequence[str]:
    return tuple(map(str, getattr(sys, "argv", ())))  # an embedding host may leave it out


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:  # the directory was removed under us
        return ""


def _uid() -> int | None:
    return os.getuid() if hasattr(os, "getuid") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Everything that detection looks at. Each field defaults to this process's own.

    ``argv`` and ``orig_argv`` are ``sys``'s; ``modules`` and ``path`` are where an app's module is
    looked for, without importing it; ``uid`` is ``None`` where the system has no user ids.
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
        """``path`` made absolute against this process's directory."""
        return os.path.normpath(os.path.join(self.cwd, path))
