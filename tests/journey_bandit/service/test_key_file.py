"""`journey-bandit keys list`, `revoke` and `rotate`: what a file holds afterwards, and what opens."""

import datetime as dt
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from api.http.keys import create, load
from api.times import microseconds
from bandit.errors import CatalogueError, InvalidRequest, NotFound
from journey_bandit.main import group
from journey_bandit.service import key_file

Run = Callable[..., Result]

TODAY = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
WEEK = 7 * DAY
COMMENTED = '# keys of the shop\n\n[keys.old]  # the report\nsha256 = "%s"\nscopes = ["read"]  # no more than that\n'


def at(when: dt.datetime) -> int:
    return microseconds(when)


@pytest.fixture
def run() -> Run:
    """run(*arguments): the command in this process; our own errors end up in `exception`."""
    return lambda *arguments: CliRunner().invoke(group, ["keys", *(str(a) for a in arguments)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def rotated(file: Path, *, now: dt.datetime = TODAY, overlap: dt.timedelta = WEEK) -> str:
    return key_file.rotate(file, "shop", now, now + overlap, None)


def test_a_new_secret_opens_at_once_and_the_one_before_until_the_overlap_ends(file: Path) -> None:
    old = create(file, "shop", ["decide"], loop="offers", created=TODAY - DAY)
    new = rotated(file)
    keys = load(file)
    assert new != old
    assert new.startswith("shop.")
    assert keys.loop(new) == "offers"
    end = at(TODAY + WEEK)
    assert keys.scopes(new, at(TODAY)) == keys.scopes(old, at(TODAY)) == keys.scopes(old, end - 1) == ["decide"]
    assert (keys.scopes(new, end), keys.scopes(old, end)) == (["decide"], None)
    assert "replaced, and expired at 2026-03-08T12:00:00Z: send the new one" in keys.expired(old, end)


def test_a_second_rotation_cuts_no_overlap_that_was_promised(file: Path) -> None:
    first = create(file, "shop", ["decide"])
    second = rotated(file)
    third = rotated(file, now=TODAY + DAY)
    keys = load(file)
    assert all(keys.scopes(key, at(TODAY + WEEK) - 1) for key in (first, second, third))
    assert keys.scopes(first, at(TODAY + WEEK)) is None
    assert keys.scopes(second, at(TODAY + WEEK))
    fourth = rotated(file, now=TODAY + 9 * DAY)
    kept = tomllib.loads(file.read_text(encoding="utf-8"))["keys"]["shop"]["earlier"]
    assert len(kept) == 1, "what is over is not kept"
    assert load(file).scopes(fourth, at(TODAY + 9 * DAY))


def test_without_an_overlap_the_one_before_ends_at_once(file: Path) -> None:
    old = create(file, "shop", ["decide"])
    new = rotated(file, overlap=0 * DAY)
    keys = load(file)
    assert (keys.scopes(old, at(TODAY)), keys.scopes(new, at(TODAY))) == (None, ["decide"])


def test_no_secret_outlives_its_key(file: Path) -> None:
    old = create(file, "shop", ["decide"], expires=TODAY + DAY)
    new, end = rotated(file), at(TODAY + DAY)
    keys = load(file)
    assert all(keys.scopes(key, end - 1) for key in (old, new))
    for key in (old, new):
        assert keys.scopes(key, end) is None
        assert "'shop' expired at 2026-03-02T12:00:00Z" in keys.expired(key, end)


def test_an_expired_key_gets_no_new_secret_without_a_new_end(file: Path) -> None:
    create(file, "shop", ["decide"], expires=TODAY)
    before = file.read_bytes()
    with pytest.raises(CatalogueError, match="give --expires too"):
        rotated(file)
    assert file.read_bytes() == before
    key = key_file.rotate(file, "shop", TODAY, TODAY, TODAY + DAY)
    assert load(file).scopes(key, at(TODAY)) == ["decide"]


def test_what_people_wrote_in_the_file_stays(file: Path) -> None:
    text = COMMENTED % ("0" * 64)
    file.write_text(text, encoding="utf-8")
    create(file, "shop", ["decide"])
    rotated(file)
    key_file.revoke(file, "shop")
    assert file.read_text(encoding="utf-8").rstrip() == text.rstrip()
    assert file.stat().st_mode & 0o077 == 0


def test_a_link_to_the_file_stays_a_link(file: Path) -> None:
    create(file, "shop", ["decide"])
    link = file.with_name("link.toml")
    link.symlink_to(file)
    key = rotated(link)
    assert link.is_symlink()
    assert load(file).scopes(key, at(TODAY)) == ["decide"]
    assert {found.name for found in file.parent.iterdir()} == {"keys.toml", "link.toml"}


def test_a_revoked_key_opens_nothing_with_any_of_its_secrets(file: Path, run: Run) -> None:
    old, other = create(file, "shop", ["decide"]), create(file, "app", ["decide"])
    new = rotated(file)
    done = run("revoke", "shop", "--file", file)
    assert done.exit_code == 0
    assert "SIGHUP" in done.stderr
    keys = load(file)
    assert [keys.scopes(key, at(TODAY)) for key in (old, new, other)] == [None, None, ["decide"]]


@pytest.mark.parametrize("command", ["revoke", "rotate"])
def test_a_key_that_is_not_there_is_named_with_those_that_are(file: Path, run: Run, command: str) -> None:
    create(file, "shop", ["decide"])
    before = file.read_bytes()
    refused = run(command, "shpo", "--file", file).exception
    assert isinstance(refused, NotFound)
    assert "did you mean `shop`?" in str(refused)
    assert file.read_bytes() == before


def test_the_list_shows_names_scopes_and_times_and_no_secret(file: Path, run: Run) -> None:
    made = [
        create(file, "shop", ["decide", "reward"], created=TODAY, expires=TODAY + DAY),
        create(file, "handmade", ["read"]),
        create(file, "news", ["decide"], "offers", created=TODAY, expires=TODAY + 36500 * DAY),
    ]
    made.append(key_file.rotate(file, "news", TODAY, TODAY + 36000 * DAY, None))
    done = run("list", "--file", file)
    rows = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert rows == [
        "name scopes created expires",
        "shop decide,reward 2026-03-01T12:00:00Z 2026-03-02T12:00:00Z expired",
        "handmade read not recorded never",
        "news decide 2026-03-01T12:00:00Z 2126-02-05T12:00:00Z replaced secret until 2124-09-23T12:00:00Z; loop offers",
    ]
    digests = [one["sha256"] for one in tomllib.loads(file.read_text(encoding="utf-8"))["keys"].values()]
    for hidden in (*(key.partition(".")[2] for key in made), *digests):
        assert hidden not in done.output


def test_an_end_is_a_duration_or_a_time(file: Path, run: Run) -> None:
    run("new", "days", "--file", file, "--expires", "90d")
    run("new", "date", "--file", file, "--expires", "2126-01-31")
    kept = tomllib.loads(file.read_text(encoding="utf-8"))["keys"]
    assert kept["days"]["expires"] - kept["days"]["created"] == 90 * DAY
    assert kept["date"]["expires"] == dt.datetime(2126, 1, 31, tzinfo=dt.UTC)
    for wrong in ("soon", "", "90", "2020-01-01"):
        refused = run("new", "x", "--file", file, "--expires", wrong).exception
        assert isinstance(refused, InvalidRequest), wrong
        assert refused.problems[0].field == "expires"


def test_the_command_prints_the_new_secret_alone(file: Path, run: Run) -> None:
    create(file, "shop", ["decide"])
    done = run("rotate", "shop", "--file", file, "--overlap", "2d")
    new = done.stdout.strip()
    assert load(file).scopes(new, at(TODAY)) == ["decide"]
    assert new not in done.stderr
    assert "accepted until" in done.stderr
    kept = tomllib.loads(file.read_text(encoding="utf-8"))["keys"]["shop"]
    assert kept["earlier"][0]["expires"] - kept["created"] == 2 * DAY
    assert isinstance(run("rotate", "shop", "--file", file, "--overlap", "a week").exception, InvalidRequest)
