from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from wherefrom import keys
from wherefrom.source.facts import Fact
from wherefrom.source.git import GIT_KEYS, git_facts

from .conftest import ENVIRON, Git


def facts_of(location: Path | str | None) -> tuple[str | None, str | None, str | None, str | None]:
    facts = git_facts(None if location is None else str(location), ENVIRON)
    assert tuple(facts) == GIT_KEYS
    commit, branch, url, dirty = (facts[key].value for key in GIT_KEYS)
    return commit, branch, url, dirty


def note_of(location: Path, key: str = keys.GIT_COMMIT) -> str:
    fact: Fact = git_facts(str(location), ENVIRON)[key]
    assert fact.value is None
    return fact.note


def test_a_clean_tree(repo: Path, git: Git) -> None:
    git(repo, "remote", "add", "origin", "https://user:s3cr3t@example.invalid/org/repo.git")
    head = git(repo, "rev-parse", "HEAD")
    assert facts_of(repo / "app.py") == (head, "main", "https://example.invalid/org/repo.git", None)
    facts = git_facts(str(repo / "app.py"), ENVIRON)
    assert facts[keys.GIT_COMMIT].origin == f"{repo}/.git/HEAD"
    assert facts[keys.GIT_REPO_URL].origin == f"remote origin in {repo}/.git/config"
    assert facts[keys.GIT_DIRTY].note == "tracked files are as committed"


def test_the_directory_of_the_tree_itself_is_a_location(repo: Path, git: Git) -> None:
    assert facts_of(repo)[:2] == (git(repo, "rev-parse", "HEAD"), "main")


def test_a_file_that_is_not_added_yet_belongs_to_the_tree(repo: Path) -> None:
    (repo / "sub").mkdir()
    (repo / "sub" / "new.py").touch()
    commit, branch, _, dirty = facts_of(repo / "sub" / "new.py")
    assert commit
    assert (branch, dirty) == ("main", None)


@pytest.mark.parametrize("change", ["modified", "staged", "deleted", "added"])
def test_a_tree_whose_tracked_files_differ_is_dirty(repo: Path, git: Git, change: str) -> None:
    if change == "deleted":
        (repo / "app.py").unlink()
    elif change == "added":
        (repo / "new.py").touch()
        git(repo, "add", "new.py")
    else:
        (repo / "app.py").write_text("x = 2\n")
        if change == "staged":
            git(repo, "add", ".")
    assert facts_of(repo)[3] == "true"


def test_a_touched_file_with_the_same_content_is_not_dirty(repo: Path) -> None:
    os.utime(repo / "app.py", (1, 1))
    assert facts_of(repo)[3] is None


def test_detached(repo: Path, git: Git) -> None:
    git(repo, "checkout", "-q", "--detach")
    assert facts_of(repo) == (git(repo, "rev-parse", "HEAD"), None, None, None)
    assert note_of(repo, keys.GIT_BRANCH) == "HEAD is detached"
    assert note_of(repo, keys.GIT_REPO_URL) == f"no remote in {repo}/.git/config"


def test_no_commits(tmp_path: Path, git: Git) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "remote", "add", "origin", "git@example.invalid:org/repo.git")
    assert facts_of(tmp_path) == (None, "main", "git@example.invalid:org/repo.git", None)
    assert note_of(tmp_path) == "no commit on refs/heads/main yet"
    assert note_of(tmp_path, keys.GIT_DIRTY) == "no commit to compare with"


def test_packed_refs_and_a_branch_with_slashes(repo: Path, git: Git) -> None:
    git(repo, "checkout", "-qb", "feature/x-y")
    git(repo, "pack-refs", "--all")
    shutil.rmtree(repo / ".git" / "refs" / "heads" / "feature", ignore_errors=True)
    assert facts_of(repo)[:2] == (git(repo, "rev-parse", "HEAD"), "feature/x-y")
    git(repo, "symbolic-ref", "HEAD", "refs/heads/feature/other")
    assert facts_of(repo)[:2] == (None, "feature/other")


def test_symbolic_refs_are_followed_to_the_branch(repo: Path, git: Git) -> None:
    git(repo, "symbolic-ref", "refs/heads/alias", "refs/heads/main")
    git(repo, "symbolic-ref", "HEAD", "refs/heads/alias")
    assert facts_of(repo)[:2] == (git(repo, "rev-parse", "HEAD"), "main")


def test_a_linked_work_tree_has_its_own_branch(repo: Path, git: Git, tmp_path: Path) -> None:
    git(repo, "remote", "add", "origin", "https://example.invalid/r")
    git(repo, "worktree", "add", "-qb", "other", str(tmp_path / "wt"))
    (tmp_path / "wt" / "app.py").write_text("x = 3\n")
    git(tmp_path / "wt", "commit", "-qam", "two")
    head = git(tmp_path / "wt", "rev-parse", "HEAD")
    assert head != git(repo, "rev-parse", "HEAD")
    assert facts_of(tmp_path / "wt" / "app.py") == (head, "other", "https://example.invalid/r", None)


def test_a_linked_work_tree_of_a_bare_repository(repo: Path, git: Git, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(repo), "bare.git")
    git(tmp_path / "bare.git", "worktree", "add", "-q", str(tmp_path / "wt"), "main")
    assert facts_of(tmp_path / "wt" / "app.py")[:2] == (git(repo, "rev-parse", "HEAD"), "main")


def test_a_submodule_is_the_tree_of_its_own_files(repo: Path, git: Git, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q", "-b", "trunk")
    git(outer, "submodule", "--quiet", "add", str(repo), "sub")
    git(outer, "commit", "-qm", "one")
    head = git(repo, "rev-parse", "HEAD")
    assert facts_of(outer / "sub" / "app.py") == (head, "main", str(repo), None)


def test_the_upstream_remote_of_the_branch_is_chosen(repo: Path, git: Git) -> None:
    git(repo, "remote", "add", "zeta", "https://example.invalid/zeta.git")
    git(repo, "remote", "add", "alpha", "https://tok@example.invalid/alpha.git?x=1")
    assert facts_of(repo)[2] == "https://example.invalid/zeta.git"
    git(repo, "remote", "add", "origin", "https://example.invalid/o.git")
    assert facts_of(repo)[2] == "https://example.invalid/o.git"
    git(repo, "config", "branch.main.remote", "alpha")
    assert facts_of(repo)[2] == "https://example.invalid/alpha.git"


def test_a_url_that_may_be_a_secret_is_absent_and_said_so(repo: Path, git: Git) -> None:
    git(repo, "remote", "add", "origin", "https://user:to/ken@example.invalid/r")
    assert note_of(repo, keys.GIT_REPO_URL) == f"remote origin in {repo}/.git/config may hold a secret"


def test_an_ignored_file_is_not_versioned_by_the_tree(repo: Path) -> None:
    (repo / "ign").mkdir()
    (repo / "ign" / "app.py").touch()
    assert facts_of(repo / "ign" / "app.py") == (None, None, None, None)
    assert "is ignored by git" in note_of(repo / "ign" / "app.py")


@pytest.mark.parametrize("inside", ["env/lib/site-packages/pkg", "env/bin", "dist-packages"])
def test_what_is_installed_inside_the_tree_is_not_versioned_by_it(repo: Path, inside: str) -> None:
    directory = repo / inside
    directory.mkdir(parents=True)
    if "env" in inside:
        (repo / "env" / "pyvenv.cfg").touch()
    assert facts_of(directory / "x.py") == (None, None, None, None)
    assert "not versioned" in note_of(directory / "x.py")


def test_a_link_leads_to_the_tree_of_its_target(repo: Path, git: Git, tmp_path: Path) -> None:
    (tmp_path / "current.py").symlink_to(repo / "app.py")
    assert facts_of(tmp_path / "current.py")[0] == git(repo, "rev-parse", "HEAD")


def test_outside_any_tree(tmp_path: Path) -> None:
    assert facts_of(tmp_path / "x.py") == (None, None, None, None)
    assert note_of(tmp_path) == f"no .git above {tmp_path.resolve()}"
    assert facts_of(None) == (None, None, None, None)
    assert facts_of("nul\0") == (None, None, None, None)


def test_environment_of_another_repository_changes_nothing(
    repo: Path, git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    for name, value in {"GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other)}.items():
        monkeypatch.setenv(name, value)
    (repo / "app.py").write_text("x = 2\n")
    facts = git_facts(str(repo), os.environ)
    assert facts[keys.GIT_COMMIT].value == git(repo, "rev-parse", "HEAD")
    assert facts[keys.GIT_DIRTY].value == "true"


def test_no_program_is_needed_to_know_everything(
    repo: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container has no git; the answers are the same."""
    (repo / "app.py").write_text("x = 2\n")
    head = git(repo, "rev-parse", "HEAD")
    (repo / "ign").mkdir()
    monkeypatch.setenv("PATH", "/nonexistent")
    assert facts_of(repo / "app.py") == (head, "main", None, "true")
    assert facts_of(repo / "ign") == (None, None, None, None)


def test_what_takes_too_long_is_not_known(repo: Path) -> None:
    facts = git_facts(str(repo / "app.py"), ENVIRON, seconds=-1)
    assert facts[keys.GIT_COMMIT].value
    assert facts[keys.GIT_DIRTY].value is None
    assert "took longer" in facts[keys.GIT_DIRTY].note


def test_a_server_that_reaps_all_children_changes_no_answer(repo: Path) -> None:
    (repo / "ign").mkdir()
    former = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert facts_of(repo / "app.py")[1::2] == ("main", None)
        (repo / "app.py").write_text("x = 2\n")
        assert facts_of(repo / "app.py")[1::2] == ("main", "true")
        assert facts_of(repo / "ign") == (None, None, None, None)
    finally:
        signal.signal(signal.SIGCHLD, former)


def test_a_repository_cannot_make_the_check_run_its_hook(repo: Path, git: Git, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    git(repo, "config", "core.fsmonitor", str(hook))
    facts_of(repo / "app.py")
    assert not (tmp_path / "ran").exists()


def test_a_bare_git_directory_has_no_work_tree(repo: Path, git: Git) -> None:
    git(repo, "config", "core.bare", "true")
    assert "is bare" in note_of(repo)


def test_reftable_is_not_read_and_said_so(repo: Path) -> None:
    (repo / ".git" / "HEAD").write_text("ref: refs/heads/.invalid\n")
    assert "reftable" in note_of(repo)


def test_an_empty_git_directory_is_passed_over(repo: Path) -> None:
    (repo / "sub" / ".git").mkdir(parents=True)
    assert facts_of(repo / "sub")[1] == "main"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\0\xff\n",
        b"ref: ../../etc/passwd",
        b"ref: refs/heads/../../x",
        b"ref: refs/\x01",
        b"x" * 100_000,
    ],
)
def test_a_head_of_garbage_is_absent_with_a_reason(repo: Path, head: bytes) -> None:
    (repo / ".git" / "HEAD").write_bytes(head)
    assert facts_of(repo)[:2] == (None, None)
    assert note_of(repo)


def test_hostile_files_are_absent_with_a_reason(repo: Path, tmp_path: Path) -> None:
    main = repo / ".git" / "refs" / "heads" / "main"
    for content in (b"garbage", b"x" * 100_000, b"ref: refs/heads/main"):
        main.write_bytes(content)
        assert facts_of(repo)[0] is None
    main.unlink()
    main.mkdir()
    assert note_of(repo) == "no commit on refs/heads/main yet"
    os.mkfifo(repo / ".git" / "packed-refs")
    assert "not a regular file" in note_of(repo)
    head = repo / ".git" / "HEAD"
    head.unlink()
    head.mkdir()
    assert facts_of(repo)[:2] == (None, None)
    head.rmdir()
    head.symlink_to(head)
    assert "symbolic links" in note_of(repo)


def test_a_config_that_cannot_be_read_only_costs_the_url(repo: Path, git: Git) -> None:
    (repo / ".git" / "config").unlink()
    os.mkfifo(repo / ".git" / "config")
    facts = git_facts(str(repo), ENVIRON)
    assert facts[keys.GIT_COMMIT].value
    assert facts[keys.GIT_REPO_URL].value is None


@pytest.mark.parametrize("content", ["", "no\n", "gitdir: /nonexistent/git\n", "gitdir: x\0y\n"])
def test_a_git_file_of_garbage(tmp_path: Path, content: str) -> None:
    (tmp_path / ".git").write_text(content)
    assert facts_of(tmp_path) == (None, None, None, None)
    assert note_of(tmp_path)
