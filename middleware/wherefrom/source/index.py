"""Whether tracked files differ from the commit, by git's index file, without running git.

A git binary would run programs that the repository names: ``status`` and ``diff-files`` alike put a file
whose time is uncertain through its ``filter.<name>.clean``, and no option turns all filters off. Here
nothing is run. What the commit holds is compared with the index by the id of the tree that the index makes;
what the index holds with the files by their status and, where that differs, by the hash of their content.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from .facts import Deadline, UnreadableError, open_regular, read_bytes
from .objects import distance

_MAX_INDEX: Final = 1 << 26
_MAX_PATH: Final = 4096
_MAX_DEPTH: Final = 200
_HEADER: Final = struct.Struct(">4sII")
_STAT: Final = struct.Struct(">10I")
_ASSUME_VALID, _IS_EXTENDED, _STAGE = 0x8000, 0x4000, 0x3000
_SKIP_WORK_TREE, _INTENT_TO_ADD = 0x4000, 0x2000  # of the extended flags
_SUBMODULE: Final = 0o160000
_32_BITS: Final = 0xFFFFFFFF
_SHA1_SIZE: Final = 20
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A tracked file: its status when it was last compared, its mode and the id of its content."""

    path: bytes
    mode: int
    id: bytes
    changed: tuple[int, int]
    modified: tuple[int, int]
    inode: int
    size: int
    is_unsettled: bool
    is_skipped: bool

    @property
    def is_submodule(self) -> bool:
        """Whether it stands for a commit of another repository."""
        return self.mode == _SUBMODULE


@dataclass(frozen=True, slots=True)
class Index:
    """The tracked files of a work tree; ``written`` is when the file that lists them was, in ns."""

    entries: list[Entry]
    written: int
    hash: Callable[..., Any]

    def holds(self, path: bytes) -> bool:
        """Whether ``path``, or something below it, is tracked."""
        below = path + b"/"
        return any(entry.path == path or entry.path.startswith(below) for entry in self.entries)

    def is_unsettled(self) -> bool:
        """Whether a merge is not resolved, or a file is about to be added."""
        return any(entry.is_unsettled for entry in self.entries)

    def tree(self) -> bytes:
        """The id of the tree that a commit of the index would hold."""
        root: dict[bytes, Any] = {}
        for entry in self.entries:
            *directories, name = entry.path.split(b"/")
            if len(directories) > _MAX_DEPTH:
                raise UnreadableError("the index holds a path that is too deep")
            place = root
            for directory in directories:
                place = place.setdefault(directory, {})
                if not isinstance(place, dict):
                    raise UnreadableError("the index holds a file in a file")
            place[name] = (entry.mode, entry.id)
        return self._tree(root)

    def _tree(self, names: dict[bytes, Any]) -> bytes:
        lines = []
        for name, held in names.items():
            if isinstance(held, dict):
                lines.append((name + b"/", b"40000 %b\0%b" % (name, self._tree(held))))
            else:
                lines.append((name, b"%o %b\0%b" % (held[0], name, held[1])))
        content = b"".join(line for _, line in sorted(lines))
        return bytes(self.hash(b"tree %d\0%b" % (len(content), content)).digest())

    def changed_files(self, root: str, deadline: Deadline) -> Iterator[tuple[Entry, str]]:
        """The files that do not hold what the index says, each with its path on the disk."""
        directory = os.fsencode(root)
        for entry in self.entries:
            deadline.check()
            path = os.path.join(directory, entry.path)
            if not entry.is_skipped and not entry.is_submodule and self._is_changed(entry, path, deadline):
                yield entry, os.fsdecode(path)

    def _is_changed(self, entry: Entry, path: bytes, deadline: Deadline) -> bool:
        try:
            found = os.lstat(path)
            if stat.S_IFMT(found.st_mode) != stat.S_IFMT(entry.mode):
                return True
            return not self._is_as_listed(entry, found) and self._id(path, found, deadline) != entry.id
        except (FileNotFoundError, NotADirectoryError):
            return True
        except (OSError, ValueError) as error:
            raise UnreadableError(f"{os.fsdecode(path)}: {error}") from error

    def _is_as_listed(self, entry: Entry, found: os.stat_result) -> bool:
        """Whether a status tells that the content is the same: not if it changed as the index was written."""
        return (
            found.st_mtime_ns < self.written
            and entry.modified == divmod(found.st_mtime_ns, 10**9)
            and entry.changed == divmod(found.st_ctime_ns, 10**9)
            and (entry.size, entry.inode) == (found.st_size & _32_BITS, found.st_ino & _32_BITS)
        )

    def _id(self, path: bytes, found: os.stat_result, deadline: Deadline) -> bytes:
        if stat.S_ISLNK(found.st_mode):
            return self.content_id(os.readlink(path))
        digest = self.hash(b"blob %d\0" % found.st_size)
        with open_regular(os.fsdecode(path)) as file:
            while piece := file.read(_CHUNK):
                deadline.check()
                digest.update(piece)
        return bytes(digest.digest())

    def changed_modes(self, root: str) -> Iterator[str]:
        """The paths of the files that became executable, or are so no longer."""
        for entry in self.entries:
            path = os.path.join(root, os.fsdecode(entry.path))
            is_file = not entry.is_skipped and os.path.isfile(path) and not os.path.islink(path)
            if is_file and (os.lstat(path).st_mode ^ entry.mode) & 0o100:
                yield os.fsdecode(entry.path)

    def content_id(self, content: bytes) -> bytes:
        """The id under which git keeps the content of a file."""
        return bytes(self.hash(b"blob %d\0%b" % (len(content), content)).digest())


def read_index(git_dir: str, id_size: int, deadline: Deadline) -> Index:
    """The index of a work tree, in version 2, 3 or 4; ids have ``id_size`` bytes.

    Raises:
        UnreadableError: there is none, it is malformed or hostile, or a part of it lies elsewhere.
    """
    file = os.path.join(git_dir, "index")
    data = read_bytes(file, _MAX_INDEX)
    try:
        entries = list(_entries(data, id_size, deadline))
        written = os.stat(file).st_mtime_ns
    except (struct.error, IndexError, ValueError, OSError) as error:
        raise UnreadableError(f"{file} is malformed") from error
    return Index(entries, written, hashlib.sha1 if id_size == _SHA1_SIZE else hashlib.sha256)


def _entries(data: bytes, id_size: int, deadline: Deadline) -> Iterator[Entry]:
    signature, version, count = _HEADER.unpack_from(data)
    if signature != b"DIRC" or version not in {2, 3, 4}:
        raise ValueError(version)
    at, path, characters = _HEADER.size, b"", 0
    for _ in range(count):
        deadline.check()
        start, numbers = at, _STAT.unpack_from(data, at)
        at += _STAT.size
        id_, at = data[at : at + id_size], at + id_size
        flags, at = int.from_bytes(data[at : at + 2], "big"), at + 2
        extended = 0
        if flags & _IS_EXTENDED:
            extended, at = int.from_bytes(data[at : at + 2], "big"), at + 2
        kept = 0
        if version == 4:
            cut, at = distance(data, at)
            kept = max(len(path) - cut, 0)
        end = data.index(b"\0", at)
        path = path[:kept] + data[at:end]
        at = end + 1 if version == 4 else start + (end - start + 8) // 8 * 8
        characters += len(path)
        if not path or len(path) > _MAX_PATH or characters > _MAX_INDEX or path.startswith(b"/"):
            raise ValueError(path)
        yield Entry(
            path,
            numbers[6],
            id_,
            changed=numbers[0:2],
            modified=numbers[2:4],
            inode=numbers[5],
            size=numbers[9],
            is_unsettled=bool(flags & _STAGE or extended & _INTENT_TO_ADD),
            is_skipped=bool(flags & _ASSUME_VALID or extended & _SKIP_WORK_TREE),
        )
    while at < len(data) - id_size:
        if data[at : at + 1].islower():  # such as of a split or a sparse index: not to be passed over
            raise UnreadableError(f"the index has an extension {data[at : at + 4]!r}, which is not read")
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "big")
