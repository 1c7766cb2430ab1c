"""Files that commands write: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IMODE

from .._permissions import make_private
from .._sanitize import visible
from ..exceptions import WherefromError
from ..stores import Store
from ..stores.sqlite.file import file_of


class OutputError(WherefromError, OSError):
    """A file that cannot be written, or must not be."""


@contextmanager
def replacing(path: Path, store: Store) -> Iterator[Path]:
    """A path to write to, which takes the place of ``path`` when all went well; a pipe is written to itself.

    Raises:
        OutputError: it cannot be written, or it is the store that is read.
    """
    shown, target = visible(path), path.absolute().resolve()
    kept = file_of(store)
    if kept is not None and target == kept.resolve():
        raise OutputError(f"{shown} is the store itself: name another file")
    if target.is_dir():
        raise OutputError(f"{shown} is a directory: name a file in it")
    is_special = target.exists() and not target.is_file()
    part = target if is_special else target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        if not is_special:
            part.unlink(missing_ok=True)
            make_private(part)
        yield part
        if not is_special:
            if target.exists():
                part.chmod(S_IMODE(target.stat().st_mode))
            part.replace(target)
    except OSError as error:
        raise OutputError(f"{shown} cannot be written: {error.strerror or error}") from error
    finally:
        if not is_special:
            with suppress(OSError):
                part.unlink()
