from __future__ import annotations

from pathlib import Path

import pytest

from wherefrom.source.facts import Process
from wherefrom.source.launchers import LAUNCHERS, find_target, read_arguments


def target_of(
    command: str, cwd: str = "/nonexistent", environ: dict[str, str] | None = None
) -> tuple[str | None, tuple[str, ...]]:
    argv = command.split()
    process = Process(argv=argv, environ=environ or {}, cwd=cwd)
    target = find_target(LAUNCHERS[argv[0]], process)
    return target.name, target.directories


@pytest.mark.parametrize(
    "command",
    [
        "uvicorn m:app",
        "uvicorn m:app --port 80",
        "uvicorn --port 80 m:app",
        "uvicorn --port=80 --reload --no-access-log m:app --workers 2",
        "uvicorn --factory m:app",
        "uvicorn --loop custom:loop m:app",
        "uvicorn --option-of-next-year m:app",
        "uvicorn --flag-of-next-year m:app --host 127.0.0.1",
        "uvicorn --port 80 -- m:app",
        "gunicorn -k uvicorn.workers.UvicornWorker m:app",
        "gunicorn m:app -w4 -D --bind :8000",
        "gunicorn -w 4 -b 127.0.0.1:8000 --preload m:app --access-logfile -",
        "hypercorn --debug -b [::]:80 m:app",
        "granian --interface asgi --ws m:app --no-log",
        "daphne -b 0.0.0.0 --proxy-headers m:app",
        "fastapi run -e m:app --port 80",
        "fastapi dev --entrypoint m:app",
    ],
)
def test_the_app_is_found_among_the_options(command: str) -> None:
    assert target_of(command)[0] == "m:app"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("uvicorn pkg.mod:sub.app", "pkg.mod:sub.app"),
        ("gunicorn pkg.mod", "pkg.mod"),
        ("gunicorn pkg.mod:create()", "pkg.mod:create()"),
        ("hypercorn src/app.py:app", "src/app.py:app"),
        ("hypercorn asgi:mod:app", "asgi:mod:app"),
        ("fastapi dev src/main.py --port 80", "src/main.py"),
        ("fastapi run --reload --workers 2 main.py", "main.py"),
        ("uvicorn", None),
        ("gunicorn --config /nonexistent", None),
        ("fastapi run", None),
    ],
)
def test_the_app_is_as_it_was_typed(command: str, name: str | None) -> None:
    assert target_of(command)[0] == name


def test_directories_where_the_app_is_looked_for() -> None:
    assert target_of("uvicorn --app-dir src m:app", "/srv") == ("m:app", ("/srv/src",))
    assert target_of("uvicorn --app-dir=/opt m:app", "/srv") == ("m:app", ("/opt",))
    assert target_of("gunicorn --chdir a --pythonpath b,/c m:app", "/s") == ("m:app", ("/s/a", "/s/b", "/c"))
    assert target_of("granian m:app", "/s", {"GRANIAN_WORKING_DIR": "w"}) == ("m:app", ("/s/w",))
    assert target_of("uvicorn m:app", "/s", {"UVICORN_APP_DIR": "w"}) == ("m:app", ("/s/w",))


def test_the_environment_may_name_the_app() -> None:
    assert target_of("uvicorn --port 80", environ={"UVICORN_APP": "m:app"})[0] == "m:app"


def test_gunicorn_is_configured_by_variable_and_file(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text('bind = "x"\nwsgi_app = "conf:app"\n')
    (tmp_path / "other.py").write_text("wsgi_app='other:app'\n")
    cwd = str(tmp_path)
    assert target_of("gunicorn", cwd)[0] == "conf:app"
    assert target_of("gunicorn m:app", cwd)[0] == "m:app"
    assert target_of("gunicorn -c other.py", cwd)[0] == "other:app"
    assert target_of("gunicorn", cwd, {"GUNICORN_CMD_ARGS": "-c 'other.py' --chdir x"}) == (
        "other:app",
        (f"{cwd}/x",),
    )
    assert target_of("gunicorn", cwd, {"GUNICORN_CMD_ARGS": "'open"})[0] == "conf:app"
    (tmp_path / "gunicorn.conf.py").write_text("wsgi_app = find()\n")
    assert target_of("gunicorn", cwd)[0] is None


def test_fastapi_looks_for_its_app(tmp_path: Path) -> None:
    cwd = str(tmp_path)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").touch()
    assert target_of("fastapi run", cwd)[0] == "app/main.py"
    (tmp_path / "main.py").touch()
    assert target_of("fastapi run", cwd)[0] == "main.py"
    project = tmp_path / "pyproject.toml"
    for text in ("[tool.fastapi]\nentrypoint = 1\n", "[tool]\nfastapi = 1\n", "[tool\n", "[project]\n"):
        project.write_text(text)
        assert target_of("fastapi run", cwd)[0] == "main.py"
    project.write_text('[tool.fastapi]\nentrypoint = "backend.main:app"\n')
    assert target_of("fastapi run", cwd)[0] == "backend.main:app"


def test_an_option_at_the_end_has_no_value() -> None:
    arguments = read_arguments(["-", "--port"], frozenset())
    assert arguments.words == ["-"]
    assert arguments.options == {"--port": ""}
    assert arguments.first("--host") is None
