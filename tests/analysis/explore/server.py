"""The page of a grid, served on loopback for a test, and requests to it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from analysis.explore.command import listen, make_page, make_server, parse_arguments

TOKEN = "a-token-of-a-test"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


@dataclass(frozen=True)
class Client:
    """Sends requests as they are: no path is made tidy.

    `cookie`: what a browser that was given the token sends.
    """

    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/?token={TOKEN}"

    @property
    def cookie(self) -> str:
        return f"explore-{self.port}={TOKEN}"

    def send(
        self, path: str, *, method: str = "GET", body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body=body, headers={"Cookie": self.cookie, **(headers or {})})
            got = connection.getresponse()
            return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())
        finally:
            connection.close()

    def get(self, path: str, **words: object) -> Answer:
        return self.send(f"{path}?{urlencode(words)}" if words else path)

    def json(self, path: str, **words: object) -> Any:
        answer = self.get(path, **words)
        assert answer.status == 200, answer.body
        return answer.json


@contextmanager
def served(uri: str, *options: str) -> Iterator[Client]:
    """The page of the grid at a tracking URI."""
    page = make_page(parse_arguments(["--tracking-uri", uri, *options]))
    listening = listen("127.0.0.1", 0)
    server = make_server(page, TOKEN)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield Client(listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()


def cache_of(uri: str) -> Path:
    """Where the page of a local store keeps what it draws."""
    return Path(uri.removeprefix("sqlite:///")).parent / "cache" / "explore"
