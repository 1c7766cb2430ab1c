"""Runs two releases of the chat service under the same traffic, and shows which one is worse.

``make demo`` runs it. With ``DEMO_ONCE=1`` it exits instead of serving the app and the web UI until Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from wherefrom import TraceClient

HERE = Path(__file__).parent
FOLDER = HERE.parent / ".demo"
STORE = f"sqlite:///{FOLDER / 'wherefrom.db'}"
RELEASES = (
    {"APP_VERSION": "1.0.0", "DEPLOYMENT_ID": "deploy-41", "REGION": "eu-central-1"},
    {"APP_VERSION": "1.1.0", "DEPLOYMENT_ID": "deploy-42", "REGION": "us-east-1"},
)
QUESTIONS = (
    "what is wherefrom",
    "who speaks asgi",
    "show me a trace",
    "why did my request fail",
    "tell me something",
)
REQUESTS = 240
SESSIONS = 12
SERVING_PORT = 8000
PAGE_PORT = 8400
# The demo looks once; the page by itself allows to look again and again, and needs more traces for that.
LOOK = {"by": "app_version", "sequential": "false"}

console = Console()


@contextlib.contextmanager
def running(
    words: list[str], port: int, environment: dict[str, str], folder: Path = HERE
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``python -m`` with these words as a server on this port; stop it at the end of the block."""
    with (FOLDER / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words, "--port", str(port)],
            cwd=folder,
            env=own_environment() | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_ready(process, port)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def own_environment() -> dict[str, str]:
    """Return the environment of this process, with the demo's settings instead of others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WHEREFROM_")}
    return kept | {"WHEREFROM_STORE": STORE}


def chat_service(release: dict[str, str], port: int) -> contextlib.AbstractContextManager[Any]:
    """Run the chat service under uvicorn."""
    words = ["uvicorn", "main:app", "--log-level", "critical"]
    return running(words, port, release | {"APP_ENVIRONMENT": "production"}, HERE / "fastapi_app")


def page(port: int) -> contextlib.AbstractContextManager[Any]:
    """Run the web UI on the loopback address."""
    return running(["wherefrom", "ui"], port, {})


def wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"A server did not start. Its log is {FOLDER / 'server.log'}.")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    sys.exit("A server did not accept connections within 30 seconds.")


def choose_port(wanted: int = 0) -> int:
    """Return the wanted port if it is free, else any free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def send_traffic(port: int, label: str, progress: Progress) -> None:
    task = progress.add_task(label, total=REQUESTS)
    limit = asyncio.Semaphore(8)
    # One connection per request: uvicorn closes a connection on which the app raised.
    limits = httpx.Limits(max_keepalive_connections=0)
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as client:

        async def one(number: int) -> None:
            session = number % SESSIONS
            headers = {"X-Session-ID": f"session-{session:02}", "X-User-ID": f"user-{session % 5}"}
            # A stream that fails closes its connection before its end.
            async with limit:
                with contextlib.suppress(httpx.TransportError):
                    await ask(client, headers, random.random())
            progress.advance(task)

        await asyncio.gather(*(one(number) for number in range(REQUESTS)))


async def ask(client: httpx.AsyncClient, headers: dict[str, str], kind: float) -> None:
    earlier = random.choice(QUESTIONS)
    turns = [
        {"role": "user", "content": earlier},
        {"role": "assistant", "content": "You asked that **before**."},
        {"role": "user", "content": random.choice(QUESTIONS)},
    ]
    body = {"messages": turns if kind < 0.4 else turns[-1:]}
    if kind < 0.65:
        await client.post("/chat", json=body, headers=headers)
    elif kind < 0.8:
        await client.post("/chat/stream", json=body, headers=headers)
    elif kind < 0.95:
        word = random.choice(("wherefrom", "asgi", "trace", "nothing"))
        await client.get(f"/documents/{word}", headers=headers)
    else:
        await client.get("/health")


def run_release(release: dict[str, str], progress: Progress) -> None:
    port = choose_port()
    with chat_service(release, port):
        asyncio.run(send_traffic(port, f"release {release['APP_VERSION']} in {release['REGION']}", progress))


def wherefrom(*arguments: str) -> None:
    """Print a command and its output."""
    shown = " ".join(f"'{part}'" if " " in part else part for part in arguments)
    console.print(f"\n[bold]$ wherefrom {shown}[/bold]")
    subprocess.run([sys.executable, "-m", "wherefrom", *arguments], check=True, env=own_environment())


def show_next_steps(port: int) -> None:
    console.print("\n[bold]Send a request[/bold]")
    print(
        f"  curl -i http://127.0.0.1:{port}/chat -H 'Content-Type: application/json' \\\n"
        "    -H 'X-Request-ID: my-request' -H 'X-Session-ID: my-session' -H 'X-User-ID: me' \\\n"
        '    -d \'{"messages": [{"role": "user", "content": "what is wherefrom"}]}\''
    )
    console.print("\n[bold]More commands[/bold]")
    print(
        f"  export WHEREFROM_STORE={STORE}\n"
        "  .venv/bin/wherefrom search \"client_request_id = 'my-request'\"\n"
        "  .venv/bin/wherefrom show my-request\n"
        "  .venv/bin/wherefrom search \"status = 'ERROR' AND metadata.app_version = '1.1.0'\"\n"
        "  .venv/bin/wherefrom search \"metadata.feature_flag_new_retriever = 'true'\"\n"
        "  .venv/bin/wherefrom flag new_retriever\n"
        "  .venv/bin/wherefrom sessions\n"
        "  .venv/bin/wherefrom tail\n"
        "  .venv/bin/wherefrom doctor"
    )


def record_traffic() -> None:
    """Record the traffic of both releases in a new store."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for release in RELEASES:
            run_release(release, progress)


def read_verdict(address: str) -> str:
    """Return the verdict of the Compare page; exit if it does not find the regression of the new release."""
    answer = httpx.get(f"{address}/compare", params=LOOK, timeout=30).raise_for_status()
    text = html.unescape(re.sub("<[^>]+>", "", answer.text))
    found = re.search(r"1\.1\.0.* is worse than 1\.0\.0.+", text)
    if found is None:
        sys.exit(f"The page {address}/compare does not report that 1.1.0 is worse than 1.0.0.")
    return found[0]


def main() -> None:
    record_traffic()
    wherefrom("search", "--limit", "12")
    failed = TraceClient(STORE).search_traces(filter_string="status = 'ERROR'", max_results=1)
    wherefrom("show", failed[0].info.trace_id if failed else "latest")
    wherefrom("compare", "--by", "app_version")

    port, page_port = choose_port(SERVING_PORT), choose_port(PAGE_PORT)
    address = f"http://127.0.0.1:{page_port}"
    show_next_steps(port)
    with page(page_port):
        console.print("\n[bold]Web UI[/bold]")
        print(f"  {address}/compare?{urlencode(LOOK)} reports:\n  {read_verdict(address)}")
        if os.environ.get("DEMO_ONCE") == "1":
            console.print("\nWithout DEMO_ONCE=1, `make demo` serves both until Ctrl-C.")
            return
        with chat_service(RELEASES[-1], port) as process:
            console.print(f"\nChat service: http://127.0.0.1:{port}")
            console.print(f"Web UI:       [bold]{address}[/bold]\nPress Ctrl-C to stop both.")
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
