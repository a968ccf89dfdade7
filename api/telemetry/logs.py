"""Logs of a service: one line for each event, as text or as JSON, on standard error. `journey-bandit serve` configures
them once; whatever this process logs takes the same form, lines of the server and Python's warnings included.

A standard formatter does this in a few lines, and every module goes on logging with the standard library. A library of
structured logs would add a dependency whose other half, bound loggers and processors, nothing here uses.
"""

import datetime as dt
import json
import logging
import re
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from typing import Any, Literal

from api.telemetry.request_context import CURRENT

LogFormat = Literal["text", "json"]
LogLevel = Literal["info", "warning", "error"]

FIELDS = "fields"
"""Attribute of a log record (`extra={FIELDS: {...}}`) with more fields of its JSON line."""

log = logging.getLogger("journey_bandit.server")

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _context() -> dict[str, str]:
    """Fields that name the request, and its trace if it has one."""
    context = CURRENT.get()
    if context is None:
        return {}
    found = {"request_id": context.id}
    return found | {"trace_id": context.trace_id} if context.trace_id else found


def _time(record: logging.LogRecord) -> str:
    return dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonLines(logging.Formatter):
    """Formatter of JSON lines: an object with `time` (UTC), `level`, `logger`, `event` (the message), `request_id` and
    `trace_id` where there are such, further fields of some events, and `exception` with a traceback. ASCII only.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Line of a record, without its end."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage().rstrip("\n"),
            **_context(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """Formatter of text: time (UTC), level, logger, message and the request's id. Control characters in a message are
    escaped and tracebacks are indented, so that nothing that was sent can look like a line of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Line of a record, with a traceback below it."""
        event = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], record.getMessage().rstrip("\n"))
        words = [_time(record), record.levelname, record.name, event]
        line = " ".join([*words, *(f"{name}={value}" for name, value in _context().items())])
        if record.exc_info:
            line += "\n" + textwrap.indent(self.formatException(record.exc_info), "  ", lambda _: True)
        return line


@contextmanager
def held() -> Iterator[None]:
    """Context whose lines are logged at its end: of a start, before it is known in which form."""
    keeping = MemoryHandler(1000, flushLevel=sys.maxsize)
    logging.root.addHandler(keeping)
    try:
        yield
    finally:
        logging.root.removeHandler(keeping)
        for record in keeping.buffer:
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)


def configure(form: LogFormat, level: LogLevel) -> None:
    """Log in this form from this level on, on standard error, whatever this process logs. Warnings of Python and errors
    that end a thread are logged too. Called once, by a process that serves.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.root.addHandler(handler)
    logging.root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    threading.excepthook = _thread_ended


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    name = ended.thread.name if ended.thread else "(unknown)"
    error = ended.exc_value
    log.error("thread %s ended", name, exc_info=(ended.exc_type, error, ended.exc_traceback) if error else None)
