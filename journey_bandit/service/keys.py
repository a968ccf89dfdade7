"""Command `journey-bandit keys`: make API keys, look at them, replace and withdraw them."""

import datetime as dt
from pathlib import Path
from typing import Any, Literal, cast

import click

from api import clocks
from api.http.browser_access import LONGEST_TOKEN, signed
from api.http.keys import (
    EVERY,
    SCOPES,
    ApiKey,
    Scope,
    create,
    create_publishable,
    read,
    read_publishable,
    written,
)
from api.times import microseconds, parsed, time_of
from api.traffic.request_limits import IN_FLIGHT
from bandit.catalogue import durations
from bandit.catalogue.decoding import closest
from bandit.errors import InvalidRequest, NotFound, Problem
from journey_bandit.service import key_file

_FILE = click.option("--file", type=click.Path(path_type=Path), default=Path("keys.toml"), show_default=True)
_EXPIRES = click.option(
    "--expires", help="When it ends: a duration from now such as 90d, or an ISO time (UTC).  [default: never]"
)
_APPLY = "a running service goes on with what it read: send it SIGHUP (kill -HUP PID), or restart it"


@click.group()
def keys() -> None:
    """Make API keys, look at them, replace and withdraw them."""


@keys.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(EVERY), default=SCOPES, show_default=True)
@_FILE
@click.option("--loop", default="", help="For Personalizer: the stage it ranks for, where the endpoint has no path.")
@_EXPIRES
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Requests and items a second.  [default: 10000]")
@click.option("--burst", type=click.FloatRange(1), help="Requests and items at once.  [default: twice the rate]")
@click.option("--in-flight", type=click.IntRange(1), help="Requests at the same time.  [default: 128]")
def new(name: str, scopes: tuple[str, ...], file: Path, loop: str, expires: str | None, **quota: float | None) -> None:
    """Make a key, keep its digest in the file, and print it once. SIGHUP makes a running service use it."""
    now = time_of(clocks.wall())
    end = _end("expires", expires, now)
    chosen = [cast(Scope, scope) for scope in scopes]
    secret = create(file, name, chosen, loop, created=now, expires=end, quota=quota)
    click.echo(f"kept its digest in {file}; the key itself is shown only now:", err=True)
    click.echo(secret)


@keys.command()
@click.argument("name")
@click.option("--origin", "origins", multiple=True, required=True, help="Of pages that use it: https://shop.example")
@click.option(
    "--users", type=click.Choice(["signed", "anyone"]), default="signed", show_default=True,
    help="Whether a token must say who the user is.",
)  # fmt: skip
@_FILE
def publish(name: str, origins: tuple[str, ...], users: Literal["signed", "anyone"], file: Path) -> None:
    """Make a publishable key for pages in browsers, and print its id. The file keeps the secret that your backend signs
    users with.
    """
    made = create_publishable(file, name, list(origins), users, time_of(clocks.wall()))
    click.echo(f"kept in {file}, with the secret that signs users; pages send this id, which is no secret:", err=True)
    click.echo(made.id)


@keys.command()
@click.argument("name")
@click.option("--user", required=True, help="Id of the user that the token is of.")
@click.option("--for", "lasting", default="1h", show_default=True, help="How long it is accepted, a day at most.")
@click.option("--stock", type=click.IntRange(min=0), help="Evidence instead: units that are left.")
@click.option("--deadline", help="Evidence instead: when an offer ends, such as 2027-01-31T18:00:00Z.")
@_FILE
def token(name: str, user: str, lasting: str, stock: int | None, deadline: str | None, file: Path) -> None:
    """Print a token that says who a user is, or (--stock, --deadline) evidence for their page; for trials. Your backend
    makes its own, with any JWT library.
    """
    known = read_publishable(file)
    if name not in known:
        raise NotFound("name", f"{file} has no publishable key {name!r}", closest(name, known))
    wrong = list(durations.check("for", lasting))
    if wrong:
        raise InvalidRequest(*wrong)
    seconds = durations.seconds(lasting)
    if seconds > LONGEST_TOKEN:
        raise InvalidRequest(Problem("for", f"{lasting} is more than a day", "at most 1d"))
    now, more = clocks.wall() // 1_000_000, dict[str, Any]()
    if stock is not None or deadline is not None:
        ends = parsed("deadline", deadline)
        told = {"stock": stock, "deadline": None if ends is None else written(time_of(ends))}
        more = {"iat": now, "evidence": {name: value for name, value in told.items() if value is not None}}
    click.echo(signed(known[name], user, now + round(seconds), **more))


@keys.command("list")
@_FILE
def list_(file: Path) -> None:
    """Show the keys in the file: names, scopes, when they were made and when they end (UTC); never a secret, nor its
    digest.
    """
    found, now = read(file), time_of(clocks.wall())
    width = max([4, *map(len, found)])
    for line in [_row("name", "scopes", "created", "expires", "", width)] * bool(found):
        click.echo(line)
    for name, key in found.items():
        click.echo(_line(name, key, now, width))
    click.echo(f"{len(found)} key(s) in {file}", err=True)
    pages = read_publishable(file)
    for name, page in pages.items():
        end = f", expires {written(page.expires)}" if page.expires else ""
        click.echo(f"{name}: {page.id}, for pages of {', '.join(page.origins)}; users: {page.users}{end}")
    if pages:
        click.echo(f"{len(pages)} publishable key(s) in {file}", err=True)


@keys.command()
@click.argument("name")
@_FILE
def revoke(name: str, file: Path) -> None:
    """Take a key out of the file, with every secret it had. A running service refuses it after SIGHUP or a restart, not
    before.
    """
    key_file.revoke(file, name)
    click.echo(f"{name} is out of {file}; {_APPLY}", err=True)


@keys.command()
@click.argument("name")
@_FILE
@click.option("--overlap", default="7d", show_default=True, help='How long the secret it had is accepted; "0s": not.')
@_EXPIRES
def rotate(name: str, file: Path, overlap: str, expires: str | None) -> None:
    """Give a key a new secret, and print it once. The one it had is accepted for the overlap."""
    now = time_of(clocks.wall())
    wrong = list(durations.check("overlap", overlap, zero=True))
    if wrong:
        raise InvalidRequest(*wrong)
    until = now + dt.timedelta(seconds=durations.seconds(overlap))
    secret = key_file.rotate(file, name, now, until, _end("expires", expires, now))
    rest = f"the one before is accepted until {written(until)}" if until > now else "the one before is out of the file"
    click.echo(f"kept its digest in {file}; {rest}", err=True)
    click.echo(f"{_APPLY}; the key itself is shown only now:", err=True)
    click.echo(secret)


def _line(name: str, key: ApiKey, now: dt.datetime, width: int) -> str:
    said = ["expired"] * bool(key.expires and key.expires <= now)
    said += [f"replaced secret until {written(one.expires)}" for one in key.earlier if one.expires > now]
    said += [f"loop {key.loop}"] * bool(key.loop)
    limits = {"rate": key.rate, "burst": key.burst, "in_flight": key.in_flight}
    said += [f"{field} {number:g}" for field, number in limits.items() if number not in (None, IN_FLIGHT)]
    created = written(key.created) if key.created else "not recorded"
    return _row(name, ",".join(key.scopes), created, written(key.expires) if key.expires else "never", said, width)


def _row(name: str, scopes: str, created: str, expires: str, said: list[str] | str, width: int) -> str:
    return f"{name:<{width}}  {scopes:<31}  {created:<20}  {expires:<20}  {'; '.join(said)}".rstrip()


def _end(field: str, text: str | None, now: dt.datetime) -> dt.datetime | None:
    """The time that `text` means. InvalidRequest if it means none, or one that is over."""
    if text is None:
        return None
    if not list(durations.check(field, text)):
        return now + dt.timedelta(seconds=durations.seconds(text))
    try:
        at = parsed(field, text)
    except InvalidRequest:
        at = None
    if at is None:
        fix = "a duration such as 90d, or a time such as 2027-01-31T18:00:00Z"
        raise InvalidRequest(Problem(field, f"{text!r} is neither a duration nor a time", fix))
    if at <= microseconds(now):
        raise InvalidRequest(Problem(field, f"{text} is over", "give a time to come"))
    return time_of(at)
