"""The fleet server's HTTP API as programs use it: pages of devices, one device, commands.

for row in read_devices("http://127.0.0.1:8090", token, "shop"): ...
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from pydantic import ValidationError

from edge.errors import SyncError, first_validation_error, one_line
from edge.redact import redact_address
from edge.strict_json import parse_json
from gallery_sync.formats.reports import Answer, DeviceRow

_TIMEOUT_S = 20.0
_LARGEST_BYTES = 128 << 20
_ROWS = 500  # of a page
_MOST_PAGES = 10_000
_POLL_S = 0.3
_RETRIED = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)
_ADVICE = {401: "check $FINESIGHT_FLEET_TOKEN or --token-file", 421: "use the server's address, or its --host-name"}


class FleetClient:
    """A fleet server; belongs to one thread."""

    def __init__(self, url: str, token: str | None = None, *, ca_file: Path | None = None) -> None:
        """Use a server; nothing is sent yet.

        Args:
            url: such as http://127.0.0.1:8090.
            token: that its --token-file holds; None: it needs none.
            ca_file: the only certificate authorities to trust; None: those of the system.

        Raises:
            SyncError: the URL or the file is invalid.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
            raise SyncError(f"{redact_address(url)!r} is no address of a fleet server; give one like http://HOST:8090")
        if token is not None and not (token and token.isascii() and token.isprintable()):
            raise SyncError("the token of the fleet server is empty or has characters that no token has")
        self._where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._path = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            try:
                context = ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                raise SyncError(f"{ca_file}: cannot load certificate authorities: {error}") from error
            self._connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)

    def __enter__(self) -> FleetClient:  # noqa: PYI034  Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def devices(self, query: Sequence[tuple[str, str]] = ()) -> Iterator[DeviceRow]:
        """Yield the devices that a query selects, by device id, page by page.

        Args:
            query: keys and values of `/v1/devices`.

        Raises:
            SyncError: the server cannot be reached, refuses, or answers what it should not.
        """
        after = ""
        for _ in range(_MOST_PAGES):
            pairs = [*query, ("limit", str(_ROWS)), *([("after", after)] if after else [])]
            page = self.ask("GET", f"/v1/devices?{urlencode(pairs)}")
            try:
                rows = [DeviceRow.model_validate(row) for row in page["devices"]]
                following = page["next"]
            except ValidationError as error:
                raise self._wrong(first_validation_error(error)) from error
            except (KeyError, TypeError) as error:
                raise self._wrong("no page of devices") from error
            yield from rows
            if following is None:
                return
            if not isinstance(following, str) or following <= after:
                raise self._wrong("a page that does not go on")
            after = following
        raise self._wrong("pages without end")

    def device(self, device: str) -> dict[str, Any]:
        """Return all that the server knows of a device.

        Raises:
            SyncError: there is none, or the server cannot be reached.
        """
        return self.ask("GET", f"/v1/devices/{quote(device, safe='')}")

    def send(self, device: str, verb: str, arguments: Mapping[str, Any], by: str) -> str:
        """Send a command; return its id.

        Raises:
            SyncError: it was not sent.
        """
        order = {"verb": verb, "arguments": dict(arguments), "by": by}
        sent = self.ask("POST", f"/v1/devices/{quote(device, safe='')}/commands", order)
        if not isinstance(command := sent.get("id"), str):
            raise self._wrong("no id of the command")
        return command

    def answers(self, command: str) -> list[Answer]:
        """Return the answers to a command, the first one first.

        Raises:
            SyncError: the server cannot be reached.
        """
        found = self.ask("GET", f"/v1/commands/{quote(command, safe='')}").get("answers")
        try:
            return [Answer.model_validate(one) for one in found] if isinstance(found, list) else []
        except ValidationError as error:
            raise self._wrong(first_validation_error(error)) from error

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the JSON object of its answer.

        Raises:
            SyncError: the server cannot be reached, refuses, or answers something else.
        """
        status, data = self._exchange(method, path, body)
        try:
            found = parse_json(data, _LARGEST_BYTES)
        except ValueError as error:
            raise self._wrong(f"status {status}, and not JSON") from error
        if not isinstance(found, dict):
            raise self._wrong("not a JSON object")
        if status >= 300:
            text = one_line(str(found.get("error", f"status {status}")))
            raise SyncError(f"{self._where}: {text}" + (f"; {_ADVICE[status]}" if status in _ADVICE else ""))
        return found

    def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers | ({"Content-Type": "application/json"} if data else {})
        for is_last in (method != "GET", True):  # a connection that the server closed meanwhile is replaced once
            try:
                self._connection.request(method, self._path + path, data, headers)
                response = self._connection.getresponse()
                found = response.read(_LARGEST_BYTES + 1)
            except _RETRIED as error:
                self._connection.close()
                if is_last:
                    raise self._unreachable(error) from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._connection.close()
                raise self._unreachable(error) from error
            else:
                return response.status, found
        raise self._wrong("nothing")

    def _unreachable(self, error: Exception) -> SyncError:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return SyncError(f"{self._where}: cannot reach the fleet server: {one_line(str(text))}")

    def _wrong(self, what: str) -> SyncError:
        return SyncError(f"{self._where}: this is no fleet server, or one of another version: {what}")


def wait_for_answers(
    client: FleetClient,
    commands: Mapping[str, str],
    wait_s: float,
    on_answer: Callable[[str, Answer], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Answer]:
    """Wait until every command has its last answer, or the time is up; return the last answer of each device.

    Args:
        client: the server.
        commands: id of the command, by device.
        wait_s: longest wait.
        on_answer: called with each answer as it comes.
        clock: monotonic seconds.
        sleep: waits between two looks.

    Raises:
        SyncError: the server cannot be reached.
    """
    deadline, waiting = clock() + wait_s, dict(commands)
    seen: dict[str, int] = {}
    last: dict[str, Answer] = {}
    while waiting:
        for device, command in list(waiting.items()):
            answers = client.answers(command)
            for answer in answers[seen.get(device, 0) :]:
                on_answer(device, answer)
                last[device] = answer
            seen[device] = len(answers)
            if answers and answers[-1].state != "accepted":
                del waiting[device]
        if not waiting or clock() >= deadline:
            break
        sleep(_POLL_S)
    return last
