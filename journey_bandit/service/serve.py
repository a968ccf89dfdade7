"""Command `journey-bandit serve`: the service of one app, in this process until SIGTERM. Settings come from options or
from environment variables.
"""

import contextlib
import importlib.util
import ipaddress
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import click
import msgspec

from api import server
from api.app import create_service
from api.server import ServiceEnd
from api.settings import Settings, load
from api.stores import shown
from api.telemetry import logs
from api.traffic.client_addresses import TrustedProxies, networks
from api.traffic.connections import ConnectionBounds
from bandit.errors import InvalidRequest, Problem
from bandit.policies import compilation
from journey_bandit.child_commands import exporting, monitoring

log = logging.getLogger("journey_bandit.server")


@click.command()
@click.option(
    "--app",
    help="A shipped catalogue (fintech, fashion, travel, subscription, gaming, hillstrom) or FILE.toml.",
)
@click.option("--store", help="sqlite:///FILE, postgresql://… or memory://  [default: sqlite:///journey-bandit.db]")
@click.option("--host", help="[default: 127.0.0.1]")
@click.option("--port", type=int, help="0 takes any free port.  [default: 8080]")
@click.option("--keys", help="File with API keys, see `journey-bandit keys new`.")
@click.option("--dev", is_flag=True, default=None, help="No API key needed, and nothing limited: for trials.")
@click.option("--i-know", is_flag=True, default=None, help="Allow --dev on a host that others reach.")
@click.option("--window-scale", type=float, help="Compress attribution windows, e.g. 1e-5, for trials.")
@click.option("--clock", help="wall, or driven by its client over /v1/clock, for trials.  [default: wall]")
@click.option("--webhooks", help="File with endpoints to tell, see `journey-bandit webhooks new`.")
@click.option("--cors", help="Origins of pages that may call from a browser, with commas between; * is any.")
@click.option("--queue", type=int, help="Rows that may wait for the disk; beyond, 503.  [default: 10000]")
@click.option("--connections", type=int, help="Connections held at once; beyond, the quietest end.  [default: 4096]")
@click.option("--connections-per-address", type=int, help="Of one address (IPv6: /64).  [default: 1024]")
@click.option("--trusted-proxies", help="Networks whose X-Forwarded-For is believed, with commas between.")
@click.option("--drain", type=float, help="Seconds of serving on after SIGTERM, not ready.  [default: 0]")
@click.option("--docs/--no-docs", default=None, help="Whether there is a page at /docs.  [default: docs]")
@click.option(
    "--compiled/--no-compiled",
    default=None,
    help="Whether code is compiled.  [default: where `fast` is installed]",
)
@click.option("--metrics", help="open, or read or metrics: /metrics needs a key with that scope.  [default: open]")
@click.option("--log-format", help="text, or json: an object on each line.  [default: text]")
@click.option("--log-level", help="info, warning or error: from which level on is logged.  [default: info]")
@click.option("--access-log", is_flag=True, default=None, help="Log a line for each answer.")
@click.option("--otlp", help="Address that gets traces as OTLP over HTTP, such as http://127.0.0.1:4318.")
@click.option("--mlflow-ui", help="Address of MLflow's pages, to which the console links releases.")
@click.option("--salt", help="Keys the draws and the holdout.  [default: made once and kept in the ledger]")
def serve(**given: Any) -> None:
    """Serve decisions until SIGTERM. Every option is also an environment variable: JOURNEY_BANDIT_APP, …

    SIGHUP reads keys, webhooks and the catalogue anew, without losing a request.
    """
    with logs.held():
        settings = load(given)
        logs.configure(settings.log_format, settings.log_level)
    _check_host(settings)
    with server.hangups() as early, server.claimed(settings.host, settings.port) as (address, port):
        settings = msgspec.structs.replace(settings, port=port)
        if settings.compiled is not False:
            _compile(needed=bool(settings.compiled))
        made = create_service(settings, monitor=monitoring(settings.store), exporter=exporting(settings.store))
        _announce(settings)
        bounds = ConnectionBounds(settings.connections, settings.connections_per_address)
        proxies = TrustedProxies(networks(settings.trusted_proxies))
        leave = ServiceEnd(made.leave, settings.drain)
        server.serve(
            made.app, address, port, made.reload, early, leave, bounds=bounds, metrics=made.metrics, proxies=proxies
        )
    _say(settings, "stopped; everything acknowledged is in the ledger")


def _compile(*, needed: bool) -> None:
    """Decide by compiled code, where its extra, `fast`, is installed. InvalidRequest if it is not and is `needed`."""
    if importlib.util.find_spec("numba") is None:
        if needed:
            fix = "pip install 'journey-bandit[fast]', or leave --compiled out"
            raise InvalidRequest(Problem("compiled", "there is no compiler: numba is not installed", fix))
        return
    folder = _kept_in()
    log.info("loading compiled code, or compiling it, which takes half a minute once (%s)", folder or "not kept")
    tried = compilation.start(folder)
    if tried.unread:
        log.warning("what was compiled is not read from %s, nor kept: %s; remove that folder", folder, tried.unread)
    if tried.unused:
        log.error("decisions are computed without %s: %s", tried.compiler, tried.unused)
    else:
        log.info("decisions are computed by code that %s compiled", tried.compiler)


def _kept_in() -> str:
    """Folder for what is compiled: NUMBA_CACHE_DIR, else one in the user's cache; empty if there can be none."""
    named, users = os.environ.get("NUMBA_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(named) if named else Path(users).expanduser() / "journey-bandit" / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):  # read-only, or a user without a home
        return ""
    return str(folder)


def _check_host(settings: Settings) -> None:
    """InvalidRequest for a trial that others than this machine reach."""
    if not settings.dev or settings.i_know or settings.host == "localhost":
        return
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(settings.host).is_loopback:
            return
    what = f"others may reach {settings.host}, and with --dev nobody needs a key"
    fix = "give --keys in place of --dev, leave --host out, or say --i-know"
    raise InvalidRequest(Problem("host", what, fix))


def _announce(settings: Settings) -> None:
    _say(settings, f"journey-bandit serves {settings.app} at http://{settings.host}:{settings.port}")
    if settings.docs:
        _say(settings, f"  try it  http://{settings.host}:{settings.port}/docs")
    _say(settings, f"  ledger  {shown(settings.store)}")
    if settings.dev:
        _say(settings, "  no API key is needed (--dev): not for production")
    elif not settings.keys:
        _say(settings, "  no keys yet, so nobody gets in: journey-bandit keys new NAME --file keys.toml; "
                       "then --keys keys.toml, or --dev for a trial")  # fmt: skip


def _say(settings: Settings, line: str) -> None:
    """Tell who started the service; as a line of the log where every line is JSON."""
    if settings.log_format == "json":
        log.info("%s", line.strip())
    else:
        click.echo(line, err=True)
