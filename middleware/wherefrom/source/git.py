"""The commit, branch, repository and dirty state of the entry point's work tree, read from ``.git``.

The work tree is the one that contains the entry point. The current directory and ``GIT_DIR`` are ignored:
they depend on who started the process. Reading is bounded in bytes and time, and no program runs. A git
binary may be missing, refuses trees of other owners, and runs programs that the repository configures
(filters, monitors, hooks, transports).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .. import keys
from .facts import Deadline, Fact, UnreadableError, read_bytes, read_text
from .index import Entry, Index, read_index, tree_of_commit
from .patterns import is_converted, is_ignored
from .repository import GitConfig, read_config, without_credentials

GIT_KEYS: Final = (keys.GIT_COMMIT, keys.GIT_BRANCH, keys.GIT_REPO_URL, keys.GIT_DIRTY)
_MAX_REF_BYTES: Final = 1 << 16
_MAX_CONFIG_BYTES: Final = 1 << 20
_MAX_PACKED_BYTES: Final = 1 << 25  # packed refs of a repository with 500,000 tags
_MAX_CONTENT_BYTES: Final = 1 << 25  # only files whose status differs are read
_MAX_SECONDS: Final = 2.0  # the start of the app waits for it
_MAX_SYMBOLIC: Final = 5  # git's own limit
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REFTABLE: Final = "refs/heads/.invalid"
_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True, slots=True)
class WorkTree:
    """A work tree: its root, its git directory, and the directory of the refs and config that it shares."""

    root: str
    git_dir: str
    common_dir: str


@dataclass(frozen=True, slots=True)
class Head:
    """The commit and the branch of ``HEAD``; ``note`` says why one is missing: detached, or no commit yet."""

    commit: str | None
    branch: str | None
    note: str = ""


def git_facts(
    location: str | None, environ: Mapping[str, str], seconds: float = _MAX_SECONDS
) -> dict[str, Fact]:
    """Return the four git facts for the code at ``location``, a file or directory. Raises nothing.

    ``environ`` locates the user's own ignore patterns. After ``seconds`` the comparison of files stops, and
    the dirty state is unknown.
    """
    deadline = Deadline(seconds)
    try:
        tree = _versioning_tree(location, environ, deadline)
    except UnreadableError as error:
        return {key: Fact(key, None, note=str(error)) for key in GIT_KEYS}
    try:
        head = read_head(tree)
    except UnreadableError as error:
        head = Head(None, None, str(error))
    origin = os.path.join(tree.git_dir, "HEAD")
    facts = (
        Fact(keys.GIT_COMMIT, head.commit, origin, "" if head.commit else head.note),
        Fact(keys.GIT_BRANCH, head.branch, origin, "" if head.branch else head.note),
        _url_fact(tree, head.branch),
        _dirty_fact(tree, head, environ, deadline),
    )
    return {fact.key: fact for fact in facts}


def _versioning_tree(location: str | None, environ: Mapping[str, str], deadline: Deadline) -> WorkTree:
    if not location:
        raise UnreadableError("the code of the entry point was not found")
    try:
        place = os.path.realpath(location)
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{location!r}: {error}") from error
    tree = find_work_tree(place)
    if place != tree.root and _is_left_out(os.path.relpath(place, tree.root), tree, environ, deadline):
        raise UnreadableError(f"{place} is ignored by git in {tree.root}")
    return tree


def _is_left_out(path: str, tree: WorkTree, environ: Mapping[str, str], deadline: Deadline) -> bool:
    """Return whether ``path`` is ignored by a pattern and not tracked."""
    path = path.replace(os.sep, "/")
    try:
        if not is_ignored(path, tree.root, tree.common_dir, environ, deadline):
            return False
        return not _index(tree, read_head(tree), deadline).holds(os.fsencode(path))
    except UnreadableError:
        return False


def find_work_tree(place: str) -> WorkTree:
    """Return the work tree that contains ``place``, an absolute path without symbolic links.

    Raises:
        UnreadableError: there is none, it cannot be read, or ``place`` is an installed file: a virtual
            environment in a project's directory does not belong to the project.
    """
    directory = place if os.path.isdir(place) else os.path.dirname(place)
    while True:
        git = os.path.join(directory, ".git")
        if os.path.isfile(git):
            return _linked(directory, git)
        if _is_git_directory(git):
            tree = WorkTree(directory, git, _common_dir(git))
            if _config(tree).is_bare:
                raise UnreadableError(f"{git} is bare: it has no work tree")
            return tree
        if os.path.basename(directory) in _INSTALLED or os.path.isfile(os.path.join(directory, "pyvenv.cfg")):
            raise UnreadableError(f"{place} is installed in {directory}, not versioned")
        parent = os.path.dirname(directory)
        if parent == directory:
            raise UnreadableError(f"no .git above {place}")
        directory = parent


def _is_git_directory(path: str) -> bool:
    """Whether ``path`` contains a ``HEAD``, which is git's own criterion; an empty ``.git`` is not one."""
    try:
        os.stat(os.path.join(path, "HEAD"))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}") from error
    return True


def _linked(root: str, git: str) -> WorkTree:
    """Return a linked work tree or a submodule: its ``.git`` is a file with the path of the git directory."""
    content = read_text(git, _MAX_REF_BYTES).strip()
    if not content.startswith("gitdir:"):
        raise UnreadableError(f"{git} names no git directory")
    git_dir = os.path.normpath(os.path.join(root, content.removeprefix("gitdir:").strip()))
    return WorkTree(root, git_dir, _common_dir(git_dir))


def _common_dir(git_dir: str) -> str:
    try:
        shared = read_text(os.path.join(git_dir, "commondir"), _MAX_REF_BYTES).strip()
    except UnreadableError:
        return git_dir
    return os.path.normpath(os.path.join(git_dir, shared))


def _config(tree: WorkTree) -> GitConfig:
    try:
        return read_config(read_text(os.path.join(tree.common_dir, "config"), _MAX_CONFIG_BYTES))
    except UnreadableError:
        return GitConfig()


def read_head(tree: WorkTree) -> Head:
    """Read ``HEAD``, through symbolic, loose and packed refs.

    Raises:
        UnreadableError: a file is missing, malformed or hostile, or the refs have the reftable format.
    """
    name, content = "HEAD", read_text(os.path.join(tree.git_dir, "HEAD"), _MAX_REF_BYTES).strip()
    for _ in range(_MAX_SYMBOLIC):
        if not content.startswith("ref:"):
            break
        name = _checked_name(content.removeprefix("ref:").strip())
        content = _read_ref(tree, name)
    branch = name.removeprefix("refs/heads/") if name.startswith("refs/heads/") else None
    if not content:
        return Head(None, branch, f"no commit on {name} yet")
    if not _COMMIT.fullmatch(content):
        raise UnreadableError(f"{name} in {tree.git_dir} is not a commit")
    return Head(content, branch, "" if branch else "HEAD is detached")


def _checked_name(name: str) -> str:
    if name == _REFTABLE:
        raise UnreadableError("the repository keeps its refs in the reftable format, which is not read")
    parts = name.split("/")
    if parts[0] != "refs" or ".." in parts or any(character < " " for character in name):
        raise UnreadableError(f"HEAD names no ref: {name[:100]!r}")
    return name


def _read_ref(tree: WorkTree, name: str) -> str:
    """Return the content of a ref; empty if it does not exist, as before the first commit."""
    loose = os.path.join(tree.common_dir, *name.split("/"))
    if os.path.lexists(loose) and not os.path.isdir(loose):
        return read_text(loose, _MAX_REF_BYTES).strip()
    packed = os.path.join(tree.common_dir, "packed-refs")
    if not os.path.lexists(packed):
        return ""
    found = re.search(rf"^([0-9a-f]+) {re.escape(name)}$", read_text(packed, _MAX_PACKED_BYTES), re.MULTILINE)
    return found[1] if found else ""


def _url_fact(tree: WorkTree, branch: str | None) -> Fact:
    config = _config(tree)
    remote = config.remote_of(branch)
    file = os.path.join(tree.common_dir, "config")
    if remote is None:
        return Fact(keys.GIT_REPO_URL, None, note=f"no remote in {file}")
    url = without_credentials(config.remotes[remote])
    if url is None:
        return Fact(keys.GIT_REPO_URL, None, note=f"remote {remote} in {file} may hold a secret")
    return Fact(keys.GIT_REPO_URL, url, f"remote {remote} in {file}")


def _dirty_fact(tree: WorkTree, head: Head, environ: Mapping[str, str], deadline: Deadline) -> Fact:
    if head.commit is None:
        return Fact(keys.GIT_DIRTY, None, note="no commit to compare with")
    try:
        difference = _difference(tree, head, environ, deadline)
    except UnreadableError as error:
        return Fact(keys.GIT_DIRTY, None, note=str(error))
    if difference is None:
        return Fact(keys.GIT_DIRTY, None, note="tracked files are as committed")
    return Fact(keys.GIT_DIRTY, "true", f"{difference} in {tree.root}")


def _index(tree: WorkTree, head: Head, deadline: Deadline) -> Index:
    return read_index(tree.git_dir, len(head.commit or "0" * 40) // 2, deadline)


def _difference(tree: WorkTree, head: Head, environ: Mapping[str, str], deadline: Deadline) -> str | None:
    """Return how tracked files differ from the commit, ``None`` if they do not.

    Raises:
        UnreadableError: it cannot be determined.
    """
    index = _index(tree, head, deadline)
    if index.is_unsettled() or index.tree() != tree_of_commit(tree.common_dir, head.commit or "", deadline):
        return "changes in the index"
    doubt = None
    for entry, path in index.changed_files(tree.root, deadline):
        doubt = _doubt(entry, path, index, tree, environ, deadline)
        if doubt is None:
            return f"{os.fsdecode(entry.path)} changed"
    if _config(tree).has_modes and (mode := next(index.changed_modes(tree.root), None)):
        return f"mode of {mode} changed"
    for entry in index.entries:
        if entry.is_submodule and _has_moved(entry, os.path.join(tree.root, os.fsdecode(entry.path))):
            return f"commit of submodule {os.fsdecode(entry.path)} changed"
    if doubt is not None:
        raise UnreadableError(doubt)
    return None


def _doubt(
    entry: Entry, path: str, index: Index, tree: WorkTree, environ: Mapping[str, str], deadline: Deadline
) -> str | None:
    """Return why a file with other content may still equal the commit; ``None`` if it differs."""
    name = os.fsdecode(entry.path)
    if os.path.islink(path) or not os.path.isfile(path):
        return None
    if is_converted(name, tree.root, tree.common_dir, environ, deadline):
        return f"{name} changed, or is what git makes of it by a filter"
    content = read_bytes(path, _MAX_CONTENT_BYTES)
    if b"\r\n" in content and index.content_id(content.replace(b"\r\n", b"\n")) == entry.id:
        return f"{name} differs in the ends of its lines alone"
    return None


def _has_moved(entry: Entry, directory: str) -> bool:
    if not os.path.lexists(os.path.join(directory, ".git")):
        return False
    return read_head(find_work_tree(directory)).commit != entry.id.hex()
