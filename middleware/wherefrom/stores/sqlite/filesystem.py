"""The file system of a path."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

_MOUNTS: Final = Path("/proc/self/mountinfo")
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
# Shared by several hosts, or by host and guest. They do not share the memory that SQLite's log needs.
_SHARED: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "v9fs", "virtiofs", "vboxsf", "ceph", "lustre", "gpfs",
     "glusterfs", "afs", "beegfs", "ocfs2", "gfs2", "drvfs", "prl_fs", "fuse"}
)  # fmt: skip


class FileSystem(NamedTuple):
    """A mounted file system: its type, such as ``ext4`` or ``nfs4``, and where it is mounted."""

    kind: str
    mount: str

    @property
    def is_shared(self) -> bool:
        """Whether several hosts may use it at the same time."""
        return self.kind.partition(".")[0] in _SHARED

    def __str__(self) -> str:
        return f"{self.kind}, mounted at {self.mount}"


def file_system(path: Path, mounts: Path = _MOUNTS) -> FileSystem | None:
    """The file system of a path that may not exist yet; ``None`` if the platform does not report it."""
    try:
        place = os.path.realpath(path)
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    found: FileSystem | None = None
    for line in lines:
        fields, _, rest = line.partition(" - ")
        mount = _ESCAPE.sub(lambda code: chr(int(code[1], 8)), fields.split(" ")[4])
        is_above = place == mount or place.startswith(mount.rstrip("/") + "/")
        # A later line hides an earlier one with the same mount point.
        if is_above and (found is None or len(mount) >= len(found.mount)):
            found = FileSystem(rest.split(" ")[0], mount)
    return found
