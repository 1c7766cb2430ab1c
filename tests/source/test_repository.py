from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherefrom.source.repository import read_config, without_credentials


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.invalid/org/repo.git", "https://example.invalid/org/repo.git"),
        ("https://user:s3cret@example.invalid/org/repo.git", "https://example.invalid/org/repo.git"),
        ("https://s3cret@example.invalid/repo", "https://example.invalid/repo"),
        ("https://us@er:s3c@ret@example.invalid/repo", "https://example.invalid/repo"),
        ("ssh://git:s3cret@example.invalid:22/o.git", "ssh://example.invalid:22/o.git"),
        ("ssh://git@[::1]:22/o.git", "ssh://[::1]:22/o.git"),
        ("http://[::1]/o.git", "http://[::1]/o.git"),
        ("anything+x://s3cret@host/p", "anything+x://host/p"),
        ("https://example.invalid/r.git?private_token=s3cret#s3cret", "https://example.invalid/r.git"),
        ("https://proxy/https://user:s3cret@host/r", "https://proxy/https://host/r"),
        ("https://example.invalid/@scope/r", "https://example.invalid/@scope/r"),
        ("git@example.invalid:org/repo.git", "git@example.invalid:org/repo.git"),
        ("user:s3cret@example.invalid:org/repo.git", "example.invalid:org/repo.git"),
        ("ghp_s3cret@github.com:org/repo.git", "github.com:org/repo.git"),
        ("S3CRETs3cret@github.com:org/repo.git", "github.com:org/repo.git"),
        ("/srv/git/repo.git", "/srv/git/repo.git"),
        ("/srv/git/re@po.git", "/srv/git/re@po.git"),
        ("../repo.git", "../repo.git"),
        (r"C:\git\repo", r"C:\git\repo"),
        ("file:///srv/git/repo.git", "file:///srv/git/repo.git"),
        (" https://example.invalid/r\n", "https://example.invalid/r"),
    ],
)
def test_a_url_loses_its_credentials_and_nothing_else(url: str, expected: str) -> None:
    assert without_credentials(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://exa\nmple.invalid/r",
        "https://user:s3/cret@example.invalid/r",
        "https://user:1/s3cret@example.invalid/r",
        "https://user:1/@s3cret@example.invalid/r",
        "https://user:s3#cret@example.invalid/r",
        "https://user:1#s3cret@example.invalid/r",
        "https://user:s3?cret@example.invalid/r",
        "https://user%3As3cret%40example.invalid/r",
        "https://s3/cret@example.invalid/r",
        "https:/user:s3cret@example.invalid/r",
        "https:/s3cret@example.invalid/r",
        "//user:s3cret@example.invalid/r",
        "https://host/x:s3cret@y",
        "ext::sh -c s3cret",
        "ext::https://host/s3cret",
        "git@s3cret@host:path",
        "S3cret@x@host:path",
    ],
)
def test_what_may_be_a_secret_in_the_wrong_place_is_not_kept(url: str) -> None:
    assert without_credentials(url) is None


@settings(deadline=None)
@given(
    st.sampled_from(["https", "ssh", "git+ssh"]),
    st.text("abc:%@!$&'()*+,;=-._~", min_size=1, max_size=8),
    st.sampled_from(["host", "host:22", "[::1]"]),
)
def test_no_user_information_survives(scheme: str, user: str, host: str) -> None:
    assert without_credentials(f"{scheme}://{user}SECRET@{host}/org/repo") == f"{scheme}://{host}/org/repo"


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_taken(text: str) -> None:
    result = without_credentials(text)
    assert result is None or result.isprintable()


def test_a_config_is_read_as_git_reads_it() -> None:
    config = read_config(
        "[core]\n\tbare\n"
        '[remote "a b\\"c"] url = "quoted # not a comment" ; a comment\n'
        '[remote "two"]\n\turl = first\n\turl = second\n\tpushurl = other\n'
        '[branch "x"]\n\tremote = old\n\tremote = two # the last counts\n'
        '[remote "long"]\n\turl = one\\\ntwo\\tthree\\\\\n'
        "[remote.empty]\n\turl =\n"
        "= nothing\n[broken\n"
    )
    assert config.is_bare
    assert config.remotes == {'a b"c': "quoted # not a comment", "two": "first", "long": "onetwo\tthree\\"}
    assert config.upstreams == {"x": "two"}


def test_the_upstream_remote_comes_before_origin_before_the_first() -> None:
    remotes = '[remote "zeta"]\nurl = z\n[remote "origin"]\nurl = o\n[remote "up"]\nurl = u\n'
    config = read_config(remotes + '[branch "x"]\nremote = up\n[branch "y"]\nremote = gone\n')
    assert config.remote_of("x") == "up"
    assert config.remote_of("y") == "origin"
    assert config.remote_of(None) == "origin"
    assert read_config('[remote "zeta"]\nurl = z\n[remote "alpha"]\nurl = a\n').remote_of("x") == "zeta"
    assert read_config("").remote_of("x") is None
