"""URLs without secrets."""

from __future__ import annotations

import pytest

from wherefrom.integrations.httpx import public_url


@pytest.mark.parametrize(
    "key",
    [
        "token", "access_token", "id-token", "api_key", "apikey", "X-API-Key", "key", "subscription-key",
        "secret", "client_secret", "password", "passwd", "pwd", "pass", "auth", "authorization", "signature",
        "sig", "X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "AWSAccessKeyId",
        "X-Goog-Signature", "code", "code_verifier", "jwt", "client_assertion", "sessionid", "sid", "otp",
        "to%6ben", "API+KEY",
    ],
)  # fmt: skip
def test_values_of_credentials_are_cut(key: str) -> None:
    """The value of a key that looks like a credential is redacted, wherever it is, in any spelling."""
    url = public_url("https", "api.test", f"/v1?page=2&{key}=s%26cr%3Dt&{key}=again&q=x")
    assert url == f"https://api.test/v1?page=2&{key}=REDACTED&{key}=REDACTED&q=x"


@pytest.mark.parametrize(
    "target",
    ["/", "/v1/secret/token", "/?", "/?q=a+b%20c&page=2", "/?author=x&design=y&zipcode=1&country_code=de",
     "/?token", "/?token=", "/?&&=&=x", "/?a=b=c", "/?%", "/?%zz=1"],
)  # fmt: skip
def test_all_else_is_kept_as_it_is(target: str) -> None:
    """Nothing else is changed, decoded or put in another order."""
    assert public_url("http", "api.test:8000", target) == f"http://api.test:8000{target}"


def test_a_long_one_is_cut() -> None:
    """URLs are truncated to 2048 characters."""
    assert len(public_url("http", "api.test", "/?" + "q=x&" * 1000)) == 2048
