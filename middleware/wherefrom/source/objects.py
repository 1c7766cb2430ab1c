"""The one git object that is needed: which tree a commit holds, from loose files and packs."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from .facts import Deadline, UnreadableError, open_regular, read_text

_TREE: Final = re.compile(rb"tree ([0-9a-f]{40}|[0-9a-f]{64})\n")
_LOOSE: Final = re.compile(rb"commit [0-9]{1,10}\0")
_MAX_OBJECT: Final = 1 << 20
_MAX_READ: Final = 1 << 21
_MAX_DELTAS: Final = 50  # git's own default
_MAX_ALTERNATES: Final = 1 << 12
_COMMIT, _OFFSET_DELTA, _NAMED_DELTA = 1, 6, 7


def tree_of_commit(common_dir: str, commit: str, deadline: Deadline) -> bytes:
    """The id of the tree that a commit holds.

    Raises:
        UnreadableError: the commit is in none of the repository's files, or what is there is malformed.
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
    """Where a pack holds an object, by the index of the pack, version 2."""
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
        while entry[at - 1] & 0x80:  # the size, which inflating tells as well
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
    """A number as git writes how far something is back, and where it ends."""
    value = entry[at] & 0x7F
    while entry[at] & 0x80:
        at += 1
        value = (value + 1) << 7 | entry[at] & 0x7F
    return value, at + 1


def _patched(base: bytes, delta: bytes) -> bytes:
    at = 0
    for _ in range(2):  # the sizes of both
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
