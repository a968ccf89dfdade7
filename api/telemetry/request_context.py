"""Request context: the id of the HTTP request that is being served, and the trace that it belongs to.

The id is that of the header X-Request-Id if it is safe to log, and made here otherwise. It is in the answer, in problem
documents, and in every line that is logged while the request is served.
"""

import itertools
import re
import secrets
from collections.abc import Awaitable, Iterable
from contextvars import ContextVar

from litestar.types import Message, Send

HEADER = b"x-request-id"

_SAFE = re.compile(rb"(?=[^-])[A-Za-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_PROCESS = f"{secrets.token_hex(8)}-".encode()
_NUMBER = itertools.count(1)


class RequestContext:
    """Context of one request: `name`, its id as the answer's header has it, and the headers that came.

    `trace_id`: 32 hexadecimal digits of the trace; set by a tracer, and otherwise those of a valid W3C `traceparent`
    header, "" without one. Nothing is read of `traceparent` before somebody asks.
    """

    __slots__ = ("_headers", "_trace_id", "name")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]):
        self._headers = headers
        self._trace_id: str | None = None
        came = [value for key, value in headers if key == HEADER]
        if len(came) == 1 and _SAFE.fullmatch(came[0]):
            self.name = came[0]
        else:
            self.name = b"%s%x" % (_PROCESS, next(_NUMBER))

    @property
    def id(self) -> str:
        """Id of the request: 1 to 64 letters, digits, dots, dashes and underscores."""
        return self.name.decode()

    @property
    def trace_id(self) -> str:
        """Trace that the request belongs to; "" if it is not known to belong to one."""
        if self._trace_id is None:
            found = _TRACEPARENT.fullmatch(self.traceparent)
            self._trace_id = found[1] if found else ""
        return self._trace_id

    @trace_id.setter
    def trace_id(self, value: str) -> None:
        self._trace_id = value

    @property
    def traceparent(self) -> str:
        """Header `traceparent` as it came; "" if there is none, or there are two."""
        found = [value for key, value in self._headers if key == b"traceparent"]
        return found[0].decode("latin-1") if len(found) == 1 else ""

    def naming(self, send: Send) -> Send:
        """An answer whose headers have the request's id."""
        header = (HEADER, self.name)

        def named(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
            return send(message)

        return named  # no coroutine function, which would cost another coroutine


CURRENT: ContextVar[RequestContext | None] = ContextVar("journey_bandit_request", default=None)
"""Context of the request that is being served; None outside of one, as in the writer's thread."""


def current_id() -> str:
    """Id of the request that is being served; "" outside of one."""
    context = CURRENT.get()
    return "" if context is None else context.id
