"""Settings of a service: environment variables, or the same words as options of `journey-bandit serve`, in one frozen
value that is read once at the start.
"""

import logging
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from api.telemetry.logs import LogFormat, LogLevel
from api.traffic.client_addresses import networks
from api.traffic.connections import IN_ALL, PER_ADDRESS
from bandit.errors import InvalidRequest, Problem

PREFIX = "JOURNEY_BANDIT_"


log = logging.getLogger("journey_bandit.settings")

_PAGES = re.compile(r"https?://[^\s?#]+")
_LINK = re.compile(r"(tcp|udp|sctp)://\S+")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one service, validated. Each field is an option of `serve` (`window_scale` is --window-scale) and an
    environment variable (JOURNEY_BANDIT_WINDOW_SCALE).

    Immutable. `api.app.create_service` takes it and opens what it names; parts get the values they need, not this
    object.
    """

    app: str  # a shipped catalogue's name, or FILE.toml
    store: str = "sqlite:///journey-bandit.db"
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080  # 0: any free one
    keys: str = ""  # file with API keys; needed unless dev
    dev: bool = False  # no key needed
    i_know: bool = False  # that with dev anybody who reaches the host may do anything
    salt: str = ""  # keys the draws and the holdout; made and kept in the ledger when empty
    window_scale: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0  # compresses attribution windows for trials
    clock: Literal["wall", "driven"] = "wall"  # driven: time passes when a client says so, for trials with --dev
    webhooks: str = ""  # file with endpoints that are told of decisions, rewards, alarms and promotions
    cors: str = ""  # origins of pages that may call from a browser, with commas between; * is any
    queue: Annotated[int, msgspec.Meta(ge=1)] = 10_000  # rows that may wait for the writer
    connections: Annotated[int, msgspec.Meta(ge=1)] = IN_ALL  # held at once
    connections_per_address: Annotated[int, msgspec.Meta(ge=1)] = PER_ADDRESS
    trusted_proxies: str = ""  # networks whose X-Forwarded-For is believed, with commas between
    drain: Annotated[float, msgspec.Meta(ge=0, le=600)] = 0.0  # seconds of serving on after SIGTERM, not ready
    docs: bool = True  # the page at /docs
    compiled: bool | None = None  # decide by compiled code; None: where the extra `fast` is installed
    mlflow_ui: str = ""  # address of MLflow's pages, to which the console links
    metrics: Literal["open", "read", "metrics"] = "open"  # read, metrics: /metrics needs a key with that scope
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"
    access_log: bool = False  # a line for each answer
    otlp: str = ""  # address of a receiver of traces, OTLP over HTTP


def load(given: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the options given (None: not given), then from environment variables, then from defaults. Called
    once by the command line. Raises InvalidRequest that names the field and how to set it.

    A variable that is blank counts as not set. One that Kubernetes sets for a Service of our name is ignored, and the
    log says so.
    """
    known = {field.name for field in msgspec.structs.fields(Settings)}
    from_environ = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() in known and _ours(name, value)
    }
    values = {**from_environ, **{name: value for name, value in given.items() if value is not None}}
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise _wrong(where.rstrip("`") or "app", what) from error
    try:
        networks(settings.trusted_proxies)
    except ValueError as error:
        raise _wrong("trusted_proxies", str(error)) from error
    if settings.mlflow_ui and not _PAGES.fullmatch(settings.mlflow_ui):
        raise _wrong("mlflow_ui", f"{settings.mlflow_ui!r} is no http or https address without ? and #")
    if settings.otlp and not _PAGES.fullmatch(settings.otlp):
        raise _wrong("otlp", f"{settings.otlp!r} is no http or https address without ? and #")
    return settings


def _wrong(name: str, what: str) -> InvalidRequest:
    fix = f"set --{name.replace('_', '-')} or {PREFIX}{name.upper()}"
    return InvalidRequest(Problem(name, what, fix))


def _ours(name: str, value: str) -> bool:
    """Whether a variable is meant for us. Kubernetes gives every pod NAME_PORT=tcp://… of every Service, as Docker's
    links did; ours is called so if the Service is called journey-bandit.
    """
    link = name == f"{PREFIX}PORT" and _LINK.fullmatch(value.strip())
    if link:
        log.warning("%s=%s comes from the platform's Service of that name, not from you: passed over", name, value)
    return bool(value.strip()) and not link
