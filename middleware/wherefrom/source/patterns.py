"""Ignored and converted paths of a repository: ``.gitignore`` and ``.gitattributes``.

Patterns are untrusted input: they are matched segment by segment without backtracking into ``*``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from glob import escape
from itertools import chain
from typing import Final

from .facts import Deadline, UnreadableError, read_text

_MAX_BYTES: Final = 1 << 20
_MAX_PATTERN: Final = 1_000  # matching takes time that is quadratic in it
# The attributes with which git converts a file before a comparison, except for line endings.
_CONVERSIONS: Final = frozenset({"filter", "ident", "working-tree-encoding", "crlf"})


def is_ignored(path: str, root: str, common_dir: str, environ: Mapping[str, str], deadline: Deadline) -> bool:
    """Return whether ``path``, relative to ``root``, or a directory that contains it, is ignored."""
    parts = path.split("/")
    rules: list[tuple[str, str]] = []
    for depth, found in enumerate(_rules(path, root, common_dir, environ, "ignore", "exclude")):
        rules += found
        is_directory = depth + 1 < len(parts) or os.path.isdir(os.path.join(root, path))
        if _last_rule_ignores(rules, parts[: depth + 1], is_directory, deadline):
            return True
    return False


def is_converted(
    path: str, root: str, common_dir: str, environ: Mapping[str, str], deadline: Deadline
) -> bool:
    """Return whether git may convert the file at ``path`` before a comparison.

    Line endings do not count. Macros (``[attr]``) and attributes that a later rule unsets do: ``False`` is
    certain, ``True`` is not.
    """
    parts = path.split("/")
    for directory, line in chain.from_iterable(
        _rules(path, root, common_dir, environ, "attributes", "attributes")
    ):
        deadline.check()
        if line.startswith("[attr]"):
            return True
        pattern, *attributes = line.split()
        if not _CONVERSIONS.isdisjoint(name.partition("=")[0] for name in attributes) and _matches(
            pattern.strip('"'), _below(directory, parts)
        ):
            return True
    return False


def _rules(
    path: str, root: str, common_dir: str, environ: Mapping[str, str], name: str, info: str
) -> Iterator[list[tuple[str, str]]]:
    """Yield the rules of each directory from the root to the file, as directory and line.

    Rules of the user and of ``.git/info`` apply at the root and come before its own.
    """
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", ""), ".config")
    files = [os.path.join(home, "git", name), os.path.join(common_dir, "info", info)]
    directory = ""
    for part in path.split("/"):
        files.append(os.path.join(root, directory, f".git{name}"))
        yield [(directory, line) for file in files for line in _lines(file)]
        files, directory = [], f"{directory}/{part}" if directory else part


def _last_rule_ignores(
    rules: Sequence[tuple[str, str]], parts: list[str], is_directory: bool, deadline: Deadline
) -> bool:
    for directory, line in reversed(rules):
        deadline.check()
        pattern = line.removeprefix("!")
        if (is_directory or not pattern.endswith("/")) and _matches(
            pattern.rstrip("/"), _below(directory, parts)
        ):
            return pattern is line or not line.startswith("!")
    return False


def _below(directory: str, parts: list[str]) -> list[str]:
    return parts[len(directory.split("/")) :] if directory else parts


def _matches(pattern: str, parts: list[str]) -> bool:
    """Return whether a pattern matches the path; a pattern without a slash matches a name at any depth."""
    if len(pattern) > _MAX_PATTERN:
        return False
    wanted = pattern.lstrip("/").split("/") if "/" in pattern else ["**", pattern]
    if wanted[-1] == "**":
        wanted.append("*")  # matches what is inside the directory, not the directory
    at = place = 0
    after_stars = resume = -1
    while place < len(parts):
        if at < len(wanted) and wanted[at] == "**":
            at += 1
            after_stars, resume = at, place
        elif at < len(wanted) and _fits(parts[place], wanted[at]):
            at, place = at + 1, place + 1
        elif after_stars >= 0:
            resume += 1
            at, place = after_stars, resume
        else:
            return False
    return at == len(wanted)


def _fits(name: str, pattern: str) -> bool:
    if "\\" in pattern or "[^" in pattern:
        pattern = pattern.replace("[^", "[!")
        pieces = iter(pattern)
        pattern = "".join(escape(next(pieces, "")) if piece == "\\" else piece for piece in pieces)
    return fnmatchcase(name, pattern)


def _lines(file: str) -> Iterator[str]:
    try:
        text = read_text(file, _MAX_BYTES)
    except UnreadableError:
        return
    for line in text.splitlines():
        kept = line.rstrip()
        if kept and not kept.startswith("#"):
            yield kept
