"""Compares tracked files with the commit, using git's index and objects, without running git.

A git binary would run programs that the repository configures: both ``status`` and ``diff-files`` run
``filter.<name>.clean`` on files whose time stamps are inconclusive, and no option disables all filters. The
index is compared with the commit by the id of its tree, and with the files by their status and, if that
differs, by the hash of their content. Formats: https://git-scm.com/docs/index-format and
https://git-scm.com/docs/pack-format.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from .facts import Deadline, UnreadableError, open_regular, read_bytes, read_text

_TREE: Final = re.compile(rb"tree ([0-9a-f]{40}|[0-9a-f]{64})\n")
_LOOSE: Final = re.compile(rb"commit [0-9]{1,10}\0")
_MAX_OBJECT: Final = 1 << 20  # a commit's message may be long, its tree is in the first line
_MAX_READ: Final = 1 << 21  # the compressed form of an object of that size
_MAX_DELTAS: Final = 50  # git's own default
_MAX_ALTERNATES: Final = 1 << 12
_COMMIT, _OFFSET_DELTA, _NAMED_DELTA = 1, 6, 7


def tree_of_commit(common_dir: str, commit: str, deadline: Deadline) -> bytes:
    """Return the id of a commit's tree.

    Raises:
        UnreadableError: the repository does not have the commit, or its object is malformed.
    """
    for directory in _directories(os.path.join(common_dir, "objects")):
        try:
            content = _read(directory, bytes.fromhex(commit), deadline)
        except (UnreadableError, OSError, ValueError, IndexError, zlib.error) as error:
            deadline.check()
            raise UnreadableError(f"commit {commit} in {directory} cannot be read: {error}") from error
        if content is not None:
            found = _TREE.match(content)
            if found is None:
                raise UnreadableError(f"{commit} in {directory} is not a commit")
            return bytes.fromhex(found[1].decode())
    raise UnreadableError(f"commit {commit} is not in {common_dir}")


def _directories(objects: str) -> Iterator[str]:
    yield objects
    try:
        lines = read_text(os.path.join(objects, "info", "alternates"), _MAX_ALTERNATES).splitlines()
    except UnreadableError:
        return
    yield from (os.path.join(objects, line) for line in lines if line and not line.startswith("#"))


def _read(objects: str, name: bytes, deadline: Deadline) -> bytes | None:
    loose = os.path.join(objects, name.hex()[:2], name.hex()[2:])
    if os.path.isfile(loose):
        with open_regular(loose) as file:
            content = _inflated(file.read(_MAX_READ))
        return _LOOSE.sub(b"", content, count=1)
    packs = os.path.join(objects, "pack")
    names = sorted(os.listdir(packs)) if os.path.isdir(packs) else []
    for index in names:
        if index.endswith(".idx"):
            deadline.check()
            with open_regular(os.path.join(packs, index)) as file:
                offset = _offset(file, name)
            if offset is not None:
                with open_regular(os.path.join(packs, index.removesuffix(".idx") + ".pack")) as file:
                    return _packed(file, offset, lambda base: _read(objects, base, deadline), len(name))
    return None


def _offset(index: BinaryIO, name: bytes) -> int | None:
    """The offset of an object in a pack, from the pack's index in version 2; ``None`` if it is not there."""
    if index.read(8) != b"\xfftOc\0\0\0\2":
        raise UnreadableError(f"{index.name} is not an index of a pack in version 2")
    low = 0 if name[0] == 0 else _number(index, 8 + 4 * (name[0] - 1), 4)
    high, count = _number(index, 8 + 4 * name[0], 4), _number(index, 8 + 4 * 255, 4)
    names = 8 + 4 * 256
    while low < high:
        middle = (low + high) // 2
        index.seek(names + len(name) * middle)
        found = index.read(len(name))
        if found == name:
            offsets = names + count * (len(name) + 4)
            offset = _number(index, offsets + 4 * middle, 4)
            if offset < 1 << 31:
                return offset
            return _number(index, offsets + 4 * count + 8 * (offset - (1 << 31)), 8)
        low, high = (middle + 1, high) if found < name else (low, middle)
    return None


def _number(file: BinaryIO, place: int, size: int) -> int:
    file.seek(place)
    return int.from_bytes(file.read(size), "big")


def _packed(pack: BinaryIO, offset: int, named: Callable[[bytes], bytes | None], name_size: int) -> bytes:
    deltas: list[bytes] = []
    base: bytes | None = None
    while base is None:
        pack.seek(offset)
        entry = pack.read(_MAX_READ)
        kind, at = entry[0] >> 4 & 7, 1
        while entry[at - 1] & 0x80:  # skip the size: the end of the compressed data shows it
            at += 1
        if kind not in {_COMMIT, _OFFSET_DELTA, _NAMED_DELTA} or len(deltas) > _MAX_DELTAS:
            raise UnreadableError(f"{pack.name} holds something else there")
        if kind == _COMMIT:
            base = _inflated(entry[at:])
        elif kind == _OFFSET_DELTA:
            back, at = distance(entry, at)
            deltas.append(_inflated(entry[at:]))
            offset -= back
        else:
            deltas.append(_inflated(entry[at + name_size :]))
            base = named(entry[at : at + name_size])
            if base is None:
                raise UnreadableError(f"{pack.name} lacks the base of a delta")
    for delta in reversed(deltas):
        base = _patched(base, delta)
    return base


def distance(entry: bytes, at: int) -> tuple[int, int]:
    """Return an offset in git's variable-length encoding, and the position after it."""
    value = entry[at] & 0x7F
    while entry[at] & 0x80:
        at += 1
        value = (value + 1) << 7 | entry[at] & 0x7F
    return value, at + 1


def _patched(base: bytes, delta: bytes) -> bytes:
    at = 0
    for _ in range(2):  # skip the sizes of base and result
        while delta[at] & 0x80:
            at += 1
        at += 1
    result = bytearray()
    while at < len(delta) and len(result) <= _MAX_OBJECT:
        code, at = delta[at], at + 1
        if code & 0x80:
            numbers = []
            for first, count in ((0, 4), (4, 3)):
                number = 0
                for bit in range(count):
                    if code >> first + bit & 1:
                        number |= delta[at] << 8 * bit
                        at += 1
                numbers.append(number)
            result += base[numbers[0] : numbers[0] + (numbers[1] or 0x10000)]
        else:
            result += delta[at : at + code]
            at += code or len(delta)
    return bytes(result)


def _inflated(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, _MAX_OBJECT)


_MAX_INDEX: Final = 1 << 26  # some 500,000 files
_MAX_PATH: Final = 4096  # Linux's limit
_MAX_DEPTH: Final = 200  # the tree is built by recursion
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
    """A tracked file: its status when git last compared it, its mode and the id of its content."""

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
        """Whether it is a commit of another repository."""
        return self.mode == _SUBMODULE


@dataclass(frozen=True, slots=True)
class Index:
    """The tracked files of a work tree; ``written`` is the modification time of the index file, in ns."""

    entries: list[Entry]
    written: int
    hash: Callable[..., Any]

    def holds(self, path: bytes) -> bool:
        """Return whether ``path``, or something below it, is tracked."""
        below = path + b"/"
        return any(entry.path == path or entry.path.startswith(below) for entry in self.entries)

    def is_unsettled(self) -> bool:
        """Return whether a merge is unresolved, or a file is marked to be added."""
        return any(entry.is_unsettled for entry in self.entries)

    def tree(self) -> bytes:
        """Return the id of the tree that a commit of the index would have."""
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
        """Yield the files that differ from the index, each with its path."""
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
        """Whether the status proves equal content: not if the file changed when the index was written."""
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
        """Yield the paths of the files whose executable bit changed."""
        for entry in self.entries:
            path = os.path.join(root, os.fsdecode(entry.path))
            is_file = not entry.is_skipped and os.path.isfile(path) and not os.path.islink(path)
            if is_file and (os.lstat(path).st_mode ^ entry.mode) & 0o100:
                yield os.fsdecode(entry.path)

    def content_id(self, content: bytes) -> bytes:
        """Return git's object id for the content of a file."""
        return bytes(self.hash(b"blob %d\0%b" % (len(content), content)).digest())


def read_index(git_dir: str, id_size: int, deadline: Deadline) -> Index:
    """Read the index of a work tree, version 2, 3 or 4; ids have ``id_size`` bytes.

    Raises:
        UnreadableError: it is missing, malformed or hostile, or a part of it is in another file.
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
        if data[at : at + 1].islower():  # a required extension, such as a split or a sparse index
            raise UnreadableError(f"the index has an extension {data[at : at + 4]!r}, which is not read")
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "big")
