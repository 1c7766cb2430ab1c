"""Secrets are left out of all that is recorded, by name and by look; what only sounds so stays."""

from __future__ import annotations

import base64
import dataclasses
import random
import string
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from wherefrom import MemorySink, Settings, trace, update_current_trace
from wherefrom._capture import secrets
from wherefrom._capture.secrets import REDACTED, Redactor
from wherefrom._capture.values import clean_pairs, preview, redacted_text, safe_repr, snapshot, to_json
from wherefrom.context import enter, leave
from wherefrom.model import Source
from wherefrom.model.record import decode, encode
from wherefrom.tracing.live import LiveTrace
from wherefrom.tracing.recorder import Recorder

HIDDEN = (
    "password", "Password", "new_password", "newPassword", "user-password", "passwordConfirmation",
    "password_hash", "passwd", "db_passwd", "pwd", "newpassword", "userpassword", "passphrase", "token",
    "accessToken", "access_token", "refresh_token", "refreshToken", "id_token", "csrf_token", "authToken",
    "sessionToken", "myaccesstoken", "x-api-key", "api-key", "apiKey", "APIKey", "API_KEY", "apikey",
    "apiKeys", "openai_api_key", "OPENAI_API_KEY", "secret", "client_secret", "clientSecret",
    "clientsecret", "SECRET_KEY", "secretKey", "webhook_secret", "aws_secret_access_key",
    "AWS_SECRET_ACCESS_KEY", "private_key", "privateKey", "signing-key", "encryptionKey", "authorization",
    "Authorization", "proxy-authorization", "cookie", "Set-Cookie", "credit_card", "creditCard",
    "creditcard", "cardNumber", "card_number", "cvv", "CVC", "cvv2", "ssn", "socialSecurityNumber", "pin",
    "pinCode", "otp", "credentials", "user_credentials", "auth", "basic_auth", "bearer", "jwt",
    "db.password", "spring.datasource.password", "access_tokens", "db_pass", "smtpPass", "security_code",
    "connectionString", "verification_code", "http_auth", "secret_id", "password2", "oldPassword",
    "PASSWORD", "x-auth-token", "X-Amz-Security-Token",
)  # fmt: skip
SHOWN = (
    "token_count", "tokenCount", "max_tokens", "maxTokens", "tokens", "total_tokens", "prompt_tokens",
    "completion_tokens", "tokenUsage", "mlflow.chat.tokenUsage", "token_type", "author", "authors",
    "authority", "passenger", "passengers", "compass", "bypass", "passed", "pass_rate", "key", "keys",
    "keyword", "primary_key", "foreign_key", "monkey", "keyboard", "secretary", "tokenizer", "tokenize",
    "next_page_token", "pageToken", "eos_token", "pad_token", "time_to_first_token", "cost_per_token",
    "password_length", "password_min_length", "password_policy", "api_key_id", "auth_type",
    "authentication", "authorized_at", "cookie_consent", "card", "discard", "scorecard", "cardinality",
    "pinned", "spinner", "shipping", "opinion", "option", "code", "status_code", "zip_code", "error_code",
    "credits", "credit", "session_id", "user_id", "cache_key", "sort_key", "partition_key",
    "idempotency_key", "public_key", "first_pass", "accredited", "signature", "design", "assign",
    "key_name", "secret_name", "oauth_provider", "mlflow.trace.session", "mlflow.source.git.commit",
    "url.path", "input_token",
)  # fmt: skip

RANDOM = random.Random(3)


def some(count: int, characters: str = string.ascii_letters + string.digits) -> str:
    return "".join(RANDOM.choices(characters, k=count - 1)) + "7"


HEX, UPPER = "0123456789abcdef", string.ascii_uppercase
KEYS = {
    "OpenAI": f"sk-{some(48)}",
    "OpenAI, project": f"sk-proj-{some(80)}",
    "OpenAI, service account": f"sk-svcacct-{some(60)}",
    "Anthropic": f"sk-ant-api03-{some(90)}-AA",
    "OpenRouter": f"sk-or-v1-{some(64, HEX)}",
    "AWS": f"AKIA{some(16, UPPER)}",
    "AWS, temporary": f"ASIA{some(16, UPPER)}",
    "GitHub": f"ghp_{some(36)}",
    "GitHub, app": f"ghs_{some(36)}",
    "GitHub, fine": f"github_pat_{some(22)}_{some(59)}",
    "GitLab": f"glpat-{some(20)}",
    "Slack": f"xoxb-123456789012-{some(24)}",
    "Slack, app": f"xapp-1-A012345-{some(30)}",
    "Google": f"AIza{some(35)}",
    "Google, OAuth": f"ya29.{some(60)}",
    "Google, client": f"GOCSPX-{some(28)}",
    "Stripe": f"sk_live_{some(24)}",
    "Stripe, restricted": f"rk_test_{some(24)}",
    "Stripe, webhook": f"whsec_{some(32)}",
    "Hugging Face": f"hf_{some(34)}",
    "Groq": f"gsk_{some(52)}",
    "npm": f"npm_{some(36)}",
    "PyPI": f"pypi-AgEIcHlwaS5vcmc{some(60)}",
    "SendGrid": f"SG.{some(22)}.{some(43)}",
    "DigitalOcean": f"dop_v1_{some(64, HEX)}",
    "Vault": f"hvs.{some(24)}",
    "Replicate": f"r8_{some(37)}",
    "Databricks": f"dapi{some(32, HEX)}",
    "Shopify": f"shpat_{some(32, HEX)}",
    "Twilio": f"SK{some(32, HEX)}",
    "JWT": ".".join(
        base64.urlsafe_b64encode(part.encode()).decode().rstrip("=")
        for part in ('{"alg":"HS256","typ":"JWT"}', '{"sub":"1234567890"}', some(32))
    ),
}
AROUND = (
    "{}", "the key {} is wrong", "Incorrect API key provided: {}.", "Client(api='{}')", "path/{}/x", '"{}"',
    "é {} 中", "id_{}", "x={}", "a,{},b", "{}\n", "🙂{}",
)  # fmt: skip
# Each has hunter2 in it, or another secret that is named.
TEXTS = {
    "Bearer abcdefghijklmnopqrstuvwxyz012345": "abcdefghij",
    "authorization: Bearer abc.def.ghi": "abc.def",
    "Authorization: Basic dXNlcjpwYXNz": "dXNl",
    'curl -H "Authorization: Bearer hunter2"': "hunter2",
    "Cookie: sid=hunter2; theme=dark": "hunter2",
    "card 4111 1111 1111 1111 declined": "1111 1111",
    "card 4111111111111111": "4111111111111111",
    "amex 378282246310005.": "378282246310005",
    "amex 3782 822463 10005.": "822463",
    "5500-0000-0000-0004": "0004",
    "2223003122003222": "2223003122003222",
    **dict.fromkeys(
        (
            "password=hunter2", "password: hunter2", "{'password': 'hunter2', 'n': 1}",
            '{"password": "hun\\"ter2"}', '"{\\"password\\": \\"hunter2\\"}"',
            "User(name='x', password='hunter2')", "password=b'hunter2'", "password=Secret('hunter2')",
            "postgresql://user:hunter2@db:5432/x", "redis://:hunter2@cache/0",
            "https://hunter2@github.com/x", "https://x.com/cb?access_token=hunter2&n=1",
            "https://x.com/?n=1&api_key=hunter2#f", "GET /reset?token=hunter2",
            "https://m/?key=hunter2&x=1", "https://blob/x?sv=1&sig=hunter2%3D", "pwd=hunter2;",
            "Server=x;Password=hunter2;", "apiKey => hunter2", "export OPENAI_API_KEY=hunter2",
            "--password=hunter2", 'secret: "hunter2"', "DB_PASSWORD: hunter2\nX: 1",
            "AccountKey=hunter2==;Endpoint=x", "client_secret=hunter2&x=1", 'token="hunter2',
            "x-api-key: hunter2", '{"credentials": {"user": "hunter2"}}',
            "{'tokens': 1, 'secrets': ['a', 'hunter2']}",
            "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
        ),
        "hunter2",
    ),
}  # fmt: skip
INNOCENT = (
    "token_count=5, max_tokens: 10", "Invalid password: must contain a digit", "author: John",
    "id 4111111111111112", "order 1234567890123456", "+49 170 1234567 89",
    "a basic understanding of internationalization", "2024-01-01", "123e4567-e89b-12d3-a456-426614174000",
    "tr-0123456789abcdef0123456789abcdef", "sk-learn-something-very-long",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "https://x.com/a?page=2&sort=key", "user@example.com", "password: None", "password=None",
    "token == None", "key: value", "session_id=abc123", "The token: a unit of text",
    "[0.4111111111111111, 4.111111111111111]", "1700000000000 1700000001000", "pass: 5, fail: 3",
    "https://x.com/@user/status", '{"usage": {"prompt_tokens": 5}}', "passenger=John",
    "0000 0000 0000 0000", "ISBN 978-3-16-148410-0", "1111111111111117", "2024-01-01 12:00:00.123456",
    "token: ***", "traceparent 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "12:30:45",
    "http://localhost:8000/x",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _usual_redactor() -> Iterator[None]:
    before = secrets.redactor()
    yield
    secrets._in_use.redactor = before


@pytest.fixture
def live(sink: MemorySink) -> LiveTrace:
    return Recorder(Settings(store="none"), Source({}), sink).start("root")


# --- Names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HIDDEN)
def test_a_secret_name_hides_its_value(name: str) -> None:
    """However it is written, and at any depth."""
    assert snapshot({name: "hunter2"}) == {name: REDACTED}
    assert snapshot([{"a": {name: 1234}}]) == [{"a": {name: REDACTED}}]
    assert clean_pairs({name: "hunter2"}, 100) == {name: REDACTED}
    assert snapshot("hunter2", name=name) == REDACTED


@pytest.mark.parametrize("name", SHOWN)
def test_a_name_that_only_sounds_so_does_not(name: str) -> None:
    """Counts of tokens, authors and passengers stay."""
    value = {name: "value", "n": [{name: 5}]}
    assert snapshot(value) == value
    assert clean_pairs({name: "5"}, 100) == {name: "5"}


def test_what_says_nothing_is_kept() -> None:
    """That there is no password, or that there is one, is no secret."""
    value = {
        "password": None,
        "has_password": True,
        "token": "",
        "secret": "**********",
        "auth": {"type": "x"},
    }
    assert snapshot(value) == value


def test_own_names_are_added() -> None:
    """As words, in any spelling; they hide values in texts too."""
    redactor = Redactor(["patient_id", "IBAN"])
    for name in ("patient_id", "patientId", "the-patient-id", "patientid", "iban", "user_iban"):
        assert redactor.hides(name)
        assert not Redactor().hides(name)
    assert not redactor.hides("patient")
    assert redactor.hides("password")


def test_many_names_are_told_at_once() -> None:
    """One secret among thousands of keys is found."""
    value = {f"name {number}": number for number in range(1000)} | {"userPassword": "hunter2"}
    assert snapshot(value)["userPassword"] == REDACTED


@pytest.mark.parametrize("key", [b"password", ("x", "password"), frozenset({"api_key"})])
@pytest.mark.parametrize("others", [1, 100])
def test_a_name_that_is_no_text_hides_too(key: Any, others: int) -> None:
    """What becomes of the key is looked at, among few names and among many."""
    kept = snapshot({**dict.fromkeys(map(str, range(others)), "fine"), key: "hunter2hunter2"})
    assert REDACTED in kept.values()
    assert "hunter2hunter2" not in kept.values()


# --- Texts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", KEYS)
def test_a_key_is_known_by_its_look(provider: str) -> None:
    """Alone, in a sentence, in code, in an address."""
    for around in AROUND:
        kept = snapshot(around.format(KEYS[provider]))
        assert KEYS[provider][9:] not in kept
        assert REDACTED in kept


@pytest.mark.parametrize("text", TEXTS)
def test_a_secret_in_a_text_is_left_out(text: str) -> None:
    """Pairs, addresses, headers, cards: as a value, in a message, in a repr, in a preview."""
    for kept in (
        snapshot(text), snapshot({"a": [text]}), redacted_text(ValueError(text)), preview([text], 1000),
        clean_pairs({"a": text}, 1000), snapshot("x" * 50_000 + " " + text), redacted_text(f"é {text}"),
    ):  # fmt: skip
        assert TEXTS[text] not in to_json(kept)
        assert REDACTED in to_json(kept)


@pytest.mark.parametrize("text", [*INNOCENT, *SHOWN])
def test_a_text_without_secrets_stays(text: str) -> None:
    """What only looks like one is kept, character for character."""
    assert snapshot(text) == redacted_text(text) == text
    assert snapshot({"a": [text]}) == {"a": [text]}


@given(st.text())
def test_a_text_is_searched_without_harm(text: str) -> None:
    """It never raises, and a second search changes nothing."""
    redactor = Redactor()
    once = redactor.text(text)
    assert redactor.text(once) == once


@given(st.text("abc =:'\"{}[]\\@/?&.-\n", max_size=30), st.text("abc =:,'\"{}[]\\@/?&.-\n", max_size=30))
def test_a_key_is_found_whatever_stands_around(before: str, after: str) -> None:
    """Between separators of every kind."""
    key = KEYS["GitHub"]
    assert key not in Redactor().text(f"{before} {key} {after}")


HOSTILE = {
    "words": "token: a " * 120_000,
    "pairs": 'password="' * 100_000,
    "short pairs": "password=x " * 90_000,
    "runs": "a1b2c3d4e5f6g7h8i9 " * 53_000,
    "keys": "sk-aaaaaaaaaaaaaaaaaaa " * 43_000,
    "one run": "sk-" + "a" * 1_000_000,
    "tokens": "eyJaaaaaaaaaaaaa." * 58_000,
    "cards": "4111 1111 1111 1112 " * 50_000,
    "digits": "4" * 1_000_000,
    "digits apart": "4 " * 500_000,
    "addresses": "://@" * 250_000,
    "private keys": "-----BEGIN PRIVATE KEY-----" * 37_000,
    "names": "pass." * 200_000 + "=",
    "brackets": "token={" * 140_000,
    "signs": "=:" * 500_000,
    "quotes": "token='" + "\\" * 1_000_000,
    "wide": "é中=token " * 110_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_takes_long_to_search(name: str) -> None:
    """Less than twelve times 5,000 small steps of a loop, which take 0.8 ms; the rest is not kept."""
    times, units = [], []
    for _ in range(40):
        units.append(_cpu_time(_small_steps))
        times.append(_cpu_time(lambda: snapshot(HOSTILE[name])))
        if len(times) > 2 and min(times) < 12 * min(units):
            break
    assert min(times) < 12 * min(units)


def _small_steps() -> None:
    kept = {}
    for number in range(5000):
        kept[number % 100] = number, str(number)


def _cpu_time(call: Any) -> float:
    started = time.thread_time()
    call()
    return time.thread_time() - started


def test_what_could_not_be_searched_is_cut_off() -> None:
    """Behind 300 places that may be secrets a text ends, and says so."""
    kept = snapshot("password=hunter2 " * 2000)
    assert "hunter2" not in kept
    assert kept.endswith("...")


# --- Everything that is recorded ----------------------------------------------------------------------------


class Login(BaseModel):
    user: str
    password: str


@dataclasses.dataclass
class Connection:
    url: str
    api_key: str


class Opaque:
    def __repr__(self) -> str:
        return "Opaque(user='ada', password='hunter2')"


def test_no_part_of_a_trace_holds_a_secret(live: LiveTrace, sink: MemorySink) -> None:
    """Arguments, results, previews, events, metadata, tags, exceptions and status: as stored."""

    @trace
    def login(user: str, password: str, **options: Any) -> Any:
        update_current_trace(metadata={"api_key": "hunter2"}, tags={"note": "token=hunter2"})
        live.root.set_attribute("url", "https://user:hunter2@host/?token=hunter2")
        live.root.add_event("retry", {"headers": {"Authorization": "hunter2"}})
        return [Login(user=user, password=password), Connection("redis://:hunter2@x", "hunter2"), options]

    @trace
    def fail() -> None:
        raise ValueError("cannot log in with password='hunter2'")

    @trace
    def stream() -> Iterator[dict[str, str]]:
        yield {"accessToken": "hunter2"}

    tokens = enter(live, live.root)
    live.root.set_inputs({"body": {"new_password": "hunter2"}})
    login("ada", "hunter2", opaque=Opaque(), creditCard=4111111111111111)
    with pytest.raises(ValueError, match="hunter2"):
        fail()
    list(stream())
    leave(tokens)
    live.root.set_outputs(Opaque())
    live.recorder.finish(live)
    (stored,) = sink.traces
    written = to_json(stored.to_dict())
    assert "hunter2" not in written.replace("match=", "")
    assert "4111111111111111" not in written
    assert written.count(REDACTED) > 15
    assert "ada" in written


def test_credentials_in_headers_are_only_told_apart() -> None:
    """A hash says that two requests had the same; other headers are searched as texts."""
    redactor = Redactor()
    one, same, other = (redactor.header("Authorization", f"Bearer {key}") for key in ("a", "a", "b"))
    assert one == same != other
    assert one.startswith("sha256:")
    assert redactor.header("cookie", "sid=1", b"key") != redactor.header("cookie", "sid=1")
    assert redactor.header("x-api-key", "hunter2").startswith("sha256:")
    assert redactor.header("user-agent", "curl/8") == "curl/8"
    assert redactor.header("referer", "https://x/?token=hunter2") == f"https://x/?token={REDACTED}"


def test_an_app_may_decide_itself() -> None:
    """Its hook is asked about each text and number, with the name, and fails safely."""

    def redact(name: str, value: Any) -> Any:
        if name == "boom":
            raise RuntimeError
        return "Mr. X" if value == "Ada" else [1] if name == "odd" else value

    secrets.configure(["patient"], redact)
    value = {"name": "Ada", "n": [1, "Ada"], "boom": 5, "odd": 1, "ok": None, "patient": "y"}
    assert snapshot(value) == {
        "name": "Mr. X", "n": [1, "Mr. X"], "boom": REDACTED, "odd": REDACTED, "ok": None,
        "patient": REDACTED,
    }  # fmt: skip
    assert snapshot("Ada") == "Mr. X"
    assert clean_pairs({"who": "Ada"}, 100) == {"who": "Mr. X"}


def test_a_short_repr_is_searched_where_it_is_recorded() -> None:
    """``safe_repr`` alone is for messages of ours."""
    assert "hunter2" in safe_repr(Opaque())
    assert "hunter2" not in snapshot(Opaque())


@pytest.mark.parametrize("text", [
    "556d4342298576127629c", "36961244244142f0b6617e95d1d68f78", "faeddfe71d1644a4974244765956f24d",
    "tr-4974244765956", "4974244765956_a", "0a1b2c3d-4111-1111-1111-1111aaaaaaaa", "x4111111111111111",
])  # fmt: skip
def test_an_id_is_no_card(text: str) -> None:
    """A number within an id in hex, or in a UUID, is a part of it."""
    assert snapshot(text) == redacted_text(text) == text


@given(st.uuids())
def test_uuids_stay(value: uuid.UUID) -> None:
    """Nothing in them is a secret, however they are written."""
    assert redacted_text(str(value)) == str(value)
    assert redacted_text(value.hex) == value.hex or value.hex.isdecimal()


def test_ids_are_recorded_as_they_are(make_trace: Any) -> None:
    """Even one that looks like a card."""
    number = "4111111111111111"
    trace = make_trace(client_request_id=number, trace_metadata={"mlflow.trace.session": number})
    found = decode(encode(trace)).info
    assert (found.client_request_id, found.trace_metadata["mlflow.trace.session"]) == (number, number)
