"""Repositories that want something run, or a start-up that never ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherefrom import keys
from wherefrom.source import Process, detect
from wherefrom.source.facts import Deadline, UnreadableError
from wherefrom.source.git import git_facts
from wherefrom.source.index import read_index

from .conftest import ENVIRON, Git

PROGRAMS = """\
[core]
    fsmonitor = {run}
    hooksPath = {hooks}
    pager = {run}
    editor = {run}
    sshCommand = {run}
    gitProxy = {run}
    askPass = {run}
    alternateRefsCommand = {run}
[filter "evil"]
    clean = {run}
    smudge = {run}
    process = {run}
    required = true
[diff]
    external = {run}
[diff "evil"]
    command = {run}
    textconv = {run}
[merge "evil"]
    driver = {run}
[alias]
    status = !{run}
    check-ignore = !{run}
[credential]
    helper = !{run}
[gpg]
    program = {run}
[interactive]
    diffFilter = {run}
[remote "origin"]
    url = ext::{run}
    uploadpack = {run}
    promisor = true
[extensions]
    partialClone = origin
"""


@pytest.fixture
def hostile(repo: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A repository that names a program wherever git takes one; and the file that the program makes."""
    marker, run, hooks = tmp_path / "ran", tmp_path / "run", tmp_path / "hooks"
    run.write_text(f"#!/bin/sh\necho $0 >> {marker}\ncat\n")
    run.chmod(0o755)
    hooks.mkdir()
    for hook in ("post-index-change", "post-checkout", "pre-auto-gc", "reference-transaction"):
        shutil.copy(run, hooks / hook)
    included = tmp_path / "included"
    included.write_text(PROGRAMS.format(run=run, hooks=hooks))
    with (repo / ".git" / "config").open("a") as config:
        config.write(PROGRAMS.format(run=run, hooks=hooks) + f"[include]\n    path = {included}\n")
    (repo / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    (repo / "app.py").write_text("x = 2\n")
    return repo, marker


def detected(directory: Path) -> dict[str, str | None]:
    process = Process(
        argv=[str(directory / "app.py")],
        orig_argv=(),
        environ=ENVIRON,
        cwd=str(directory),
        main_module=None,
        modules={},
        path=(),
        uid=None,
    )
    return {fact.key: fact.value for fact in detect(process).facts}


def test_no_program_that_a_repository_names_is_run(hostile: tuple[Path, Path], git: Git) -> None:
    """What git itself would run (the marker shows that the repository is armed) is not run at start-up."""
    repo, marker = hostile
    facts = detected(repo)
    assert not marker.exists()
    assert facts[keys.GIT_COMMIT]
    assert facts[keys.GIT_DIRTY] is None  # the filter may make of the file what the commit holds
    subprocess.run(["git", "-C", repo, "status"], env=ENVIRON, check=False, capture_output=True, timeout=20)
    assert marker.exists()


@pytest.mark.parametrize("where", ["ignored", "missing commit", "index", "elsewhere"])
def test_nothing_is_run_in_any_state_of_the_repository(
    hostile: tuple[Path, Path], tmp_path: Path, where: str
) -> None:
    """A commit that would have to be fetched, a racy index, ``core.worktree``: all are read, none is run."""
    repo, marker = hostile
    if where == "missing commit":
        shutil.rmtree(repo / ".git" / "objects")
    elif where == "index":
        os.utime(repo / ".git" / "index", (1, 1))
    elif where == "elsewhere":
        with (repo / ".git" / "config").open("a") as config:
            config.write(f"[core]\n    worktree = {tmp_path}\n")
    place = repo / "ign" if where == "ignored" else repo
    place.mkdir(exist_ok=True)
    (place / "app.py").write_text("x = 3\n")
    detected(place)
    assert not marker.exists()


def test_no_process_is_started(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program named git that comes first on the path is not run."""
    fake = repo.parent / "bin"
    fake.mkdir()
    (fake / "git").write_text(f"#!/bin/sh\ntouch {repo.parent}/ran\n")
    (fake / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(fake))
    git_facts(str(repo / "app.py"), {**ENVIRON, "PATH": str(fake)})
    assert not (repo.parent / "ran").exists()


FILES = ["HEAD", "config", "index", "packed-refs", "refs/heads/main", "commondir", "info/exclude"]
FILES += ["info/attributes", "objects/info/alternates", "objects/pack/p.idx", "../.gitignore"]
FILES += ["../.gitattributes", "../app.py"]


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(5 << 30)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4000)


def _stars(path: Path) -> None:
    path.write_text("*a" * 400 + "b\n" + "**/" * 300 + "c\n" + "[" * 900 + "\n" + "\\\n" * 9000)


@pytest.mark.parametrize("made", [_fifo, _loop, _sparse, _device, _garbage, _stars, Path.mkdir])
@pytest.mark.parametrize("name", FILES)
def test_no_file_of_a_repository_hangs_or_breaks_a_start(
    repo: Path, name: str, made: Callable[[Path], None]
) -> None:
    """A pipe, a loop, 5 GB, a device, garbage, patterns that backtrack, a directory: in place of any file."""
    path = repo / ".git" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    made(path)
    began = time.process_time()
    assert keys.GIT_COMMIT in git_facts(str(repo / ("a" * 200)), ENVIRON)
    assert time.process_time() - began < 4


def test_a_git_file_that_names_itself_ends(repo: Path) -> None:
    shutil.move(repo / ".git", repo / "moved")
    (repo / ".git").write_text("gitdir: .git\n")
    assert git_facts(str(repo), ENVIRON)[keys.GIT_COMMIT].value is None


def test_an_object_that_inflates_without_end_is_cut(repo: Path, git: Git) -> None:
    """100 MB of zeros in 100 kB."""
    head = git(repo, "rev-parse", "HEAD")
    loose = repo / ".git" / "objects" / head[:2] / head[2:]
    loose.chmod(0o644)
    loose.write_bytes(zlib.compress(bytes(100 << 20)))
    assert git_facts(str(repo), ENVIRON)[keys.GIT_DIRTY].note.endswith("is not a commit")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_an_index_of_anything_is_refused_or_read(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    header = data.draw(st.sampled_from([b"DIRC\0\0\0" + bytes([version]) for version in (1, 2, 3, 4)]))
    count = data.draw(st.integers(0, 3)).to_bytes(4, "big")
    body = data.draw(st.binary(max_size=400))
    directory = tmp_path_factory.mktemp("index")
    (directory / "index").write_bytes(header + count + body)
    try:
        index = read_index(str(directory), 20, Deadline(5))
        index.tree()
        list(index.changed_files(str(directory), Deadline(5)))
    except UnreadableError:
        pass


def _dirty_by_git(repo: Path) -> bool:
    command = ["git", "-C", str(repo), "status", "--porcelain", "--untracked-files=no"]
    return bool(subprocess.run(command, env=ENVIRON, check=True, capture_output=True).stdout)


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("packed", [False, True])
def test_dirty_is_what_git_says(repo: Path, git: Git, version: int, packed: bool) -> None:
    """Over additions, edits, deletions, modes, links, renames and reverts; loose and packed commits."""
    git(repo, "config", "index.version", str(version))
    deep = repo / "a" / "b-c" / "d"
    deep.mkdir(parents=True)
    for number in range(30):
        (deep / f"f{number}.txt").write_text(f"{number}\n" * number)
        (repo / "a" / f"b{number}").write_text("same\n")
        (repo / "a" / "link").unlink(missing_ok=True)
        (repo / "a" / "link").symlink_to(f"d{number}")
        git(repo, "add", ".")
        git(repo, "commit", "-qm", "long message " * 50 + str(number))
    git(repo, "update-index", "--index-version", str(version))
    if packed:
        git(repo, "gc", "-q", "--aggressive")

    def agree(expected: bool) -> None:
        fact = git_facts(str(repo / "app.py"), ENVIRON, seconds=60)[keys.GIT_DIRTY]
        assert (fact.value == "true") is expected is _dirty_by_git(repo), fact
        assert fact.value or fact.note == "tracked files are as committed"

    agree(False)
    (deep / "f3.txt").write_text("3\n3\n4\n")  # the same size
    agree(True)
    git(repo, "add", ".")
    agree(True)
    git(repo, "reset", "-q", "--hard")
    agree(False)
    (deep / "f4.txt").chmod(0o755)
    agree(True)
    git(repo, "config", "core.fileMode", "false")
    agree(False)
    (repo / "a" / "link").unlink()
    agree(True)
    (repo / "a" / "link").symlink_to("elsewhere")
    agree(True)
    git(repo, "checkout", "-q", ".")
    agree(False)
    git(repo, "mv", "a/b1", "a/renamed")
    agree(True)
    git(repo, "reset", "-q", "--hard", "HEAD~3")
    agree(False)
    git(repo, "rm", "-q", "--cached", "app.py")
    agree(True)
    git(repo, "add", "app.py")
    agree(False)
    (repo / "new").write_text("x")
    git(repo, "add", "-N", "new")
    agree(True)


def test_ignored_is_what_git_says(repo: Path, git: Git) -> None:
    """Patterns with slashes, stars, negation, classes, escapes; in two files and info/exclude."""
    (repo / ".gitignore").write_text(
        "# comment\n*.log\n!keep.log\n/top\nbuild/\nsub/**/deep\n**/tmp\nab[0-9]\n!ab[!1-8]\n"
        "\\#x\n\\!y\na/**\nx?z\ndoc/*.txt\n*/one\n"
    )
    (repo / "sub").mkdir()
    (repo / "sub" / ".gitignore").write_text("/own\n!z.log\nlast/\n")
    (repo / ".git" / "info" / "exclude").write_text("secret\n")
    names = (
        "q.log keep.log top sub/top build/f sub/build/f sub/x/y/deep sub/deep tmp p/q/tmp/f ab1 ab9 #x !y a/f"
    )
    names += (
        " a/b/f xyz x/z doc/n.txt doc/m/n.txt p/one p/q/one sub/own sub/p/own sub/z.log last/f sub/last/f"
    )
    names += " secret p/secret app.py plain"
    for name in names.split():
        path = repo / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        asked = subprocess.run(
            ["git", "-C", repo, "check-ignore", "-q", "--", name], env=ENVIRON, check=False
        )
        fact = git_facts(str(path), ENVIRON)[keys.GIT_COMMIT]
        assert (fact.value is None) is (asked.returncode == 0), name


@pytest.mark.parametrize("attributes", ["*.py filter=lfs -text", "app.* ident", "[attr]lfs filter=lfs"])
def test_a_file_that_git_converts_is_not_called_dirty(repo: Path, git: Git, attributes: str) -> None:
    (repo / ".gitattributes").write_text(attributes + "\n")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "two")
    (repo / "app.py").write_text("x = 2\n")
    fact = git_facts(str(repo), ENVIRON)[keys.GIT_DIRTY]
    assert fact.value is None
    assert "filter" in fact.note


def test_attributes_of_other_files_cast_no_doubt(repo: Path, git: Git) -> None:
    (repo / ".gitattributes").write_text("*.bin filter=lfs\n* text=auto\n/docs/** ident\n")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "two")
    (repo / "app.py").write_text("x = 2\n")
    assert git_facts(str(repo), ENVIRON)[keys.GIT_DIRTY].value == "true"


def test_ends_of_lines_alone_are_not_called_dirty(repo: Path, git: Git) -> None:
    """``core.autocrlf`` and ``text`` decide on them, in files of the system that are not read."""
    git(repo, "config", "core.autocrlf", "true")
    (repo / "app.py").write_bytes(b"x = 1\r\n")
    fact = git_facts(str(repo), ENVIRON)[keys.GIT_DIRTY]
    assert fact.value is None
    assert "ends of its lines" in fact.note


def test_a_submodule_at_another_commit_is_a_difference(repo: Path, git: Git, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q", "-b", "trunk")
    git(outer, "submodule", "--quiet", "add", str(repo), "sub")
    git(outer, "commit", "-qm", "one")
    assert git_facts(str(outer), ENVIRON)[keys.GIT_DIRTY].note == "tracked files are as committed"
    git(outer / "sub", "commit", "-q", "--allow-empty", "-m", "two")
    assert git_facts(str(outer), ENVIRON)[keys.GIT_DIRTY].value == "true"
