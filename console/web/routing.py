"""What a route is: who may use it, what it reads, and what it answers. No web server here.

Rules this module keeps:
1. Every route declares its role. There is no default.
2. A handler is a plain function of a Call. It runs in a thread, and may block.
3. A page is read by people, and changes nothing. Whatever changes something is part of the JSON API, below /api/v1/,
   and pages use the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel

from console.access.gate import Role, User
from console.access.sessions import Client
from console.services import Services

API = "/api/v1"
Access: TypeAlias = Role | Literal["anyone"]
Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file of a form. It is deleted after the handler returns, unless the handler moved it."""

    name: str  # as the browser said it: never a path to write to
    path: Path
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as a handler sees it."""

    services: Services
    user: User
    path: Mapping[str, Any] = field(default_factory=dict)  # of the parts in braces: `{id:int}` is an int
    query: Any = None  # validated, of the route's `query`
    body: Any = None  # validated, of the route's `body`
    files: tuple[UploadedFile, ...] = ()
    client: Client = field(default_factory=Client)  # the address and the browser that the request came from

    @property
    def now_s(self) -> float:
        """Unix time, seconds."""
        return self.services.clock()


@dataclass(frozen=True, slots=True)
class Html:
    """A page, or a part of one, from a template."""

    template: str  # below console/templates
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True, slots=True)
class Values:
    """JSON of a model. The console's own pages show `says` and go on to `go`; both are fields of the JSON."""

    values: BaseModel | Mapping[str, Any] = field(default_factory=dict)
    says: str = ""  # one sentence of what was done
    go: str = ""  # path of the page to show next; ".": this one, read again
    status: int = 200
    cookie: str | None = None  # a new session's; "": ends the session


@dataclass(frozen=True, slots=True)
class Bytes:
    """A picture or another small body, never HTML or SVG from outside."""

    data: bytes
    media_type: str
    cache_s: int = 0  # a browser may keep it for so long


@dataclass(frozen=True, slots=True)
class Download:
    """A file to save."""

    name: str
    media_type: str
    data: bytes | Path


@dataclass(frozen=True, slots=True)
class Event:
    """One message of a stream to the browser (server-sent events)."""

    name: str
    data: str  # JSON, or HTML from a template


@dataclass(frozen=True, slots=True)
class Events:
    """A stream of events, until the iterator ends or the browser leaves. The iterator blocks for 15 s at most."""

    events: Iterator[Event | None]  # None: nothing new, but the connection is alive


@dataclass(frozen=True, slots=True)
class Redirect:
    """Another page."""

    to: str
    cookie: str | None = None  # as of Values


Answer: TypeAlias = Html | Values | Bytes | Download | Events | Redirect
Handler: TypeAlias = Callable[[Call], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """One address."""

    method: Method
    path: str  # such as /sets/{id:int}; parts in braces are texts, `:int` whole numbers from 0
    access: Access
    handler: Handler
    summary: str  # for the description of the API
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None  # JSON, or the fields of a form
    answer: type[BaseModel] | None = None  # of an API route that answers JSON
    upload_bytes: int = 0  # the largest body of a form with files; 0: it takes none
    media: str = ""  # of an API route that answers a picture, a file or a stream, such as image/jpeg

    @property
    def is_api(self) -> bool:
        """Whether programs use it."""
        return self.path.startswith(API)


def page(path: str, access: Access, handler: Handler, query: type[BaseModel] | None = None) -> Route:
    """Return the route of a page, which is only read."""
    return Route("GET", path, access, handler, "", query=query)


def api(  # noqa: PLR0913  as many as a route has
    method: Method,
    path: str,
    access: Access,
    handler: Handler,
    summary: str,
    *,
    query: type[BaseModel] | None = None,
    body: type[BaseModel] | None = None,
    answer: type[BaseModel] | None = None,
    upload_bytes: int = 0,
    media: str = "",
) -> Route:
    """Return a route of the JSON API; `path` goes on after /api/v1."""
    return Route(method, f"{API}{path}", access, handler, summary, query, body, answer, upload_bytes, media)
