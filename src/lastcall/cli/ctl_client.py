"""The client of the control socket: HTTP over a unix socket, with the standard library's own parser."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, Final

ANSWER_SECONDS: Final = 10.0
"""For a question."""

SILENCE_SECONDS: Final = 30.0
"""For the next line of an answer in progress; a service that lives sends one every five."""

NO_PARENT: Final = "one process without a parent has none (lastcall … --workers N, or --supervise)"

LINE_AT_MOST: Final = 64 * 1024 * 1024


class ControlError(Exception):
    """The service could not be asked; the message is a line for the user. ``gone``: nobody listens there."""

    def __init__(self, message: str, *, gone: bool = False) -> None:
        super().__init__(message)
        self.gone = gone


class RefusedError(ControlError):
    """The service answers, and refuses."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("lastcall", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """Asks the service behind the socket ``path``. Every method raises ControlError."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, name: str, timeout: float = ANSWER_SECONDS) -> dict[str, Any]:
        """A question's answer."""
        connection = _UnixConnection(self.path, timeout)
        with closing(connection), _Told(self.path):
            connection.request("GET", f"/{name}")
            response = connection.getresponse()
            found = _document(response.read(), self.path)
        if response.status != 200:
            raise RefusedError(str(found.get("text") or f"the service answers with status {response.status}"))
        return found

    def order(self, name: str, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The lines of an order's answer, as they come. The last one is ``settled``, or ``ended`` if it cannot come."""
        connection = _UnixConnection(self.path, SILENCE_SECONDS)
        with closing(connection), _Told(self.path):
            body = json.dumps(arguments).encode()
            headers = {"accept": "application/x-ndjson", "content-type": "application/json"}
            connection.request("POST", f"/{name}", body, headers)
            response = connection.getresponse()
            if response.status != 200:
                found = _document(response.read(), self.path)
                raise RefusedError(str(found.get("text") or f"the service answers with status {response.status}"))
            last = ""
            try:
                while line := response.readline(LINE_AT_MOST):
                    found = _document(line, self.path)
                    last = str(found.get("event"))
                    yield found
            except (http.client.IncompleteRead, ConnectionResetError):
                pass  # its process ended
            if last not in ("settled", "ended"):
                yield {"event": "ended", "ok": False, "text": "the service has ended before it answered"}


class _Told:
    """Makes ControlError of what goes wrong with a socket: what a person can do about it is in the line."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        path = self._path
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            raise ControlError(f"no service listens on {path}; {NO_PARENT}", gone=True) from error
        if isinstance(error, PermissionError):
            raise ControlError(
                f"{path} may be used by its owner and by root only: use the user that runs the service, or sudo"
            ) from error
        if isinstance(error, TimeoutError):
            raise ControlError(f"the service on {path} does not answer") from error
        if isinstance(error, OSError):
            raise ControlError(f"{path}: {error.strerror or error}") from error
        if isinstance(error, http.client.HTTPException):
            raise ControlError(_not_ours(path)) from error


def _not_ours(path: str) -> str:
    return f"what answers on {path} is not lastcall's control socket; {NO_PARENT}"


def _document(data: bytes, path: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
        if not isinstance(found, dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise ControlError(_not_ours(path)) from None
    return found
