"""Links to commits: https, or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.web.links import commit_url

COMMIT = "91680b57f0e6ef8ffccb594f82742789910725e2"


@pytest.mark.parametrize(
    ("repository", "page"),
    [
        ("https://github.com/org/app.git", "https://github.com/org/app/commit/"),
        ("https://github.com/org/app", "https://github.com/org/app/commit/"),
        ("http://user:secret@github.com/org/app/", "https://github.com/org/app/commit/"),
        ("git@github.com:org/my.app.git", "https://github.com/org/my.app/commit/"),
        ("ssh://git@gitlab.example.com:2222/a/b/c.git", "https://gitlab.example.com/a/b/c/-/commit/"),
        ("https://git.example.com:8443/~ann/app", "https://git.example.com:8443/~ann/app/commit/"),
        ("git://bitbucket.org/org/app.git", "https://bitbucket.org/org/app/commits/"),
    ],
)
def test_the_page_of_a_commit(repository: str, page: str) -> None:
    assert commit_url(repository, COMMIT) == page + COMMIT
    assert commit_url(repository, COMMIT[:7]) == page + COMMIT[:7]


@pytest.mark.parametrize(
    "repository",
    [
        None,
        "",
        "javascript:alert(1)",
        "javascript:alert",
        "data:text/html,x",
        "file:///etc/passwd",
        "/srv/git/app.git",
        "https://",
        "https://host",
        "https://host/../../x",
        "https://host/a b",
        'https://host/"onclick=x',
        "https://ho\u202est/org/app",
        "https://host/org/app?x=y#z",
        "C:\\app",
    ],
)
def test_what_is_no_repository_has_no_page(repository: str | None) -> None:
    assert commit_url(repository, COMMIT) is None


@pytest.mark.parametrize("commit", [None, "", "main", "123456", COMMIT * 2, COMMIT + "\n", "../../x"])
def test_what_is_no_commit_has_no_page(commit: str | None) -> None:
    assert commit_url("https://github.com/org/app", commit) is None


@given(st.text())
def test_whatever_is_said_the_link_is_https_and_plain(repository: str) -> None:
    for text in (repository, f"https://{repository}", f"git@host.example:{repository}"):
        url = commit_url(text, COMMIT)
        assert url is None or (url.startswith("https://") and url.isascii() and '"' not in url)
