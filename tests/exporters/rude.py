"""A TCP server whose responses a test defines: slow, endless or truncated."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Answer = Callable[[socket.socket], None]
STATUS = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


class RudeServer:
    """Reads a request on each connection and answers it by ``answer``, which is given the socket."""

    def __init__(self, answer: Answer, *, reads: bool = True) -> None:
        self.connections = 0
        self.ended = threading.Event()
        self._answer = answer
        self._reads = reads
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.ended.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def drip(self, data: bytes, pause: float = 0.02) -> Answer:
        """An answer that comes byte by byte, again and again until the client hangs up."""

        def answer(connection: socket.socket) -> None:
            while not self.ended.is_set():
                for number in range(len(data)):
                    connection.sendall(data[number : number + 1])
                    if self.ended.wait(pause):
                        return

        return answer

    def _serve(self) -> None:
        threads = []
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threads.append(threading.Thread(target=self._meet, args=(connection,), daemon=True))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _meet(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        with connection, suppress(OSError):
            while not self._reads or _read_request(connection):
                self._answer(connection)
                if not self._reads:
                    return


@contextmanager
def rude(answer: Callable[[RudeServer, socket.socket], None], *, reads: bool = True) -> Iterator[RudeServer]:
    """A server whose ``answer`` is given the server and the socket."""
    server: RudeServer
    server = RudeServer(lambda connection: answer(server, connection), reads=reads)
    try:
        yield server
    finally:
        server.close()


def _read_request(connection: socket.socket) -> bool:
    head = b""
    while b"\r\n\r\n" not in head:
        if not (data := connection.recv(65536)):
            return False
        head += data
    head, _, body = head.partition(b"\r\n\r\n")
    length = next(
        (
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ),
        0,
    )
    left = length - len(body)
    while left > 0:
        if not (data := connection.recv(65536)):
            return False
        left -= len(data)
    return True
