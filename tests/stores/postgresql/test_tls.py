"""TLS and passwords, as libpq takes them, against a server that accepts nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from tests.mlflow.server import free_port
from tests.postgresql_server import MISSING, running_server
from wherefrom.exceptions import StoreError
from wherefrom.stores.postgresql.store import PostgreSQLStore

PASSWORD = "c0rrect horse"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def port(authority: trustme.CA) -> Iterator[int]:
    """The port of a server that takes connections with TLS and a password alone."""
    with running_server() as server:
        if server is None:
            pytest.skip(MISSING)
        with server.connect() as connection:
            connection.execute(f"CREATE ROLE app LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
        data = server.folder / "data"
        certificate = authority.issue_cert("localhost")
        for name, blob in (
            ("server.crt", certificate.cert_chain_pems[0]),
            ("server.key", certificate.private_key_pem),
        ):
            (data / name).write_bytes(blob.bytes())
            (data / name).chmod(0o600)
            if server.user is not None:
                shutil.chown(data / name, server.user)
        server.stop("fast")
        (data / "pg_hba.conf").write_text("local all all trust\nhostssl all all all scram-sha-256\n")
        port = free_port()
        server.start(f"-c listen_addresses=localhost -c port={port} -c ssl=on")
        yield port


@pytest.fixture
def passwords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int) -> Path:
    file = tmp_path / "pgpass"
    file.write_text(f"localhost:{port}:postgres:app:{PASSWORD}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    return file


def url(port: int, mode: str, root: Path | None = None) -> str:
    given = "" if root is None else f"&sslrootcert={quote(str(root))}"
    return f"postgresql://app@localhost:{port}/postgres?sslmode={mode}{given}"


@pytest.mark.usefixtures("passwords")
def test_the_server_is_verified_and_the_password_read_from_its_file(
    port: int, authority: trustme.CA, tmp_path: Path
) -> None:
    root = tmp_path / "root.crt"
    authority.cert_pem.write_to_path(str(root))
    with closing(PostgreSQLStore(url(port, "verify-full", root))) as store:
        store.upgrade()
        health = store.health()
        assert not health.problems
        with store._connected() as connection:
            used = connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
        assert used == (True,)


@pytest.mark.usefixtures("passwords")
def test_another_authority_and_no_tls_are_refused_in_one_sentence(port: int, tmp_path: Path) -> None:
    root = tmp_path / "other.crt"
    trustme.CA().cert_pem.write_to_path(str(root))
    for address, reason in (
        (url(port, "verify-full", root), "certificate verify failed"),
        (url(port, "disable"), "no encryption"),
    ):
        with closing(PostgreSQLStore(address)) as store, pytest.raises(StoreError, match=reason) as raised:
            store.upgrade()
        assert "\n" not in str(raised.value)


def test_a_wrong_password_is_not_in_the_error(
    passwords: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords.write_text(f"localhost:{port}:*:app:guess\n")
    with closing(PostgreSQLStore(url(port, "require"))) as store, pytest.raises(StoreError) as raised:
        store.upgrade()
    assert "password authentication failed" in str(raised.value)
    assert "guess" not in str(raised.value)
