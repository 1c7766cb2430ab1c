"""The URL of a store in PostgreSQL."""

from __future__ import annotations

import sys

import pytest

from wherefrom import Settings
from wherefrom.exceptions import MissingExtraError, StoreError
from wherefrom.stores import open_store
from wherefrom.stores.opening import examine
from wherefrom.stores.postgresql.address import parse_address


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("postgres://h/db", "postgresql://h/db"),
        ("postgresql://u:geheim@h:5433/db?sslmode=require", "postgresql://u@h:5433/db?sslmode=require"),
        ("postgresql://u:ge%40heim@a:1,b:2/db", "postgresql://u@a:1,b:2/db"),
        ("postgresql:///db?host=/run&password=geheim&user=u", "postgresql:///db?host=%2Frun&user=u"),
        ("postgresql://u:p@ss@h/db", "postgresql://u@h/db"),
        ("postgresql://?service=traces", "postgresql://?service=traces"),
    ],
)
def test_the_url_of_a_store_has_no_password(url: str, public: str) -> None:
    """Whatever the form of the URL; the driver gets it."""
    address = parse_address(url)
    assert address.url == public
    shown = repr(address) + address.place + address.without_secrets("p@ss ge%40heim ge@heim geheim")
    assert not any(secret in shown for secret in address.secrets)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u@h:1/db", "h:1/db"),
        ("postgresql:///db?host=/run/postgresql", "/run/postgresql/db"),
        ("postgresql://?service=traces", "traces"),
        ("postgresql://", "its default address"),
    ],
)
def test_the_place_is_what_people_recognize(url: str, place: str) -> None:
    assert parse_address(url).place == f"PostgreSQL at {place}"


def test_our_own_parameters_are_not_the_drivers() -> None:
    """A schema, and the seconds that a question may take."""
    address = parse_address("postgresql://h/db?schema=a%20b&statement_timeout=1.5&sslmode=disable")
    assert (address.schema, address.timeout_s) == ("a b", 1.5)
    assert address.conninfo == "postgresql://h/db?sslmode=disable"
    assert parse_address(address.url) == address


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:ge/heim@h/db", "postgresql://u:1/geheim@h/db", "postgresql://u:ge?heim@h/db",
        "postgresql://u:p@ss?heim@h/db", "postgresql:///db?password=p@heim",
    ],
)  # fmt: skip
def test_a_password_that_reaches_into_what_is_shown_is_refused(url: str) -> None:
    """It is neither in the message nor in what else is shown."""
    with pytest.raises(StoreError, match="are written %2F"):
        open_store(url)
    assert "heim" not in repr(examine(url)) + repr(Settings(store=url))


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "1e9"])
def test_a_bound_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(StoreError, match="takes seconds, such as 30"):
        parse_address(f"postgresql://h/db?statement_timeout={text}")


def test_settings_take_the_url_and_do_not_print_the_password() -> None:
    settings = Settings(store="postgresql://u:geheim@h/db", export="otlp+http://a:geheim@h:4318")
    assert settings.store == "postgresql://u:geheim@h/db"
    assert "geheim" not in repr(settings) + str(settings)


def test_without_the_driver_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"'wherefrom\[postgres\]'"):
        open_store("postgresql://h/db")


def test_a_server_that_does_not_answer_is_a_problem_in_one_sentence() -> None:
    """Without the password, also where the driver repeats what it was given."""
    for url in (
        "postgresql://u:geheim@127.0.0.1:1/db",
        "postgresql://u:geheim@127.0.0.1:1/db?geheim=1",
        "postgresql://u:geheim@[127.0.0.1/db",
    ):
        health = examine(url)
        (problem,) = health.problems
        assert problem.startswith("PostgreSQL at ")
        assert "geheim@" not in repr(health)
        assert ":geheim" not in repr(health)
