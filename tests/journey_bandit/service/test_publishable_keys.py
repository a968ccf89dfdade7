"""Commands for publishable keys: what they write, print and refuse; and that the other commands leave them alone."""

import tomllib
from pathlib import Path

import jwt
import pytest
from click.testing import CliRunner, Result

from api.http.keys import load, read_publishable
from bandit.errors import InvalidRequest, JourneyBanditError, NotFound
from journey_bandit.main import group

SHOP = ["--origin", "https://shop.example"]


def keys(*words: str, file: Path) -> Result:
    return CliRunner().invoke(group, ["keys", *words, "--file", str(file)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def test_a_published_key_is_printed_and_its_secret_is_not(file: Path) -> None:
    done = keys("publish", "shop", *SHOP, "--origin", "http://localhost:8000", file=file)
    assert done.exit_code == 0
    made = read_publishable(file)["shop"]
    assert done.stdout == f"{made.id}\n"
    assert made.secret not in done.output
    assert made.origins == ["https://shop.example", "http://localhost:8000"]
    assert made.users == "signed"
    assert file.stat().st_mode & 0o777 == 0o600
    assert load(file).publishable == {made.id: made}


def test_a_token_is_one_that_any_library_reads(file: Path) -> None:
    keys("publish", "shop", *SHOP, file=file)
    done = keys("token", "shop", "--user", "u1", "--for", "2h", file=file)
    made = read_publishable(file)["shop"]
    claims = jwt.decode(done.stdout.strip(), made.secret, algorithms=["HS256"], audience=made.id)
    assert claims["sub"] == "u1"


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["token", "shop", "--user", "u1", "--for", "2d"], InvalidRequest, "at most 1d"),
        (["token", "shop", "--user", "u1", "--for", "soon"], InvalidRequest, "for"),
        (["token", "shoe", "--user", "u1"], NotFound, "did you mean `shop`"),
        (["publish", "shop", *SHOP], JourneyBanditError, "exists"),
        (["publish", "other", "--origin", "shop.example"], JourneyBanditError, "is no origin"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_fix(
    file: Path, words: list[str], error: type[Exception], said: str
) -> None:
    keys("publish", "shop", *SHOP, file=file)
    before = file.read_text()
    done = keys(*words, file=file)
    assert isinstance(done.exception, error)
    assert said in str(done.exception)
    assert file.read_text() == before


def test_both_kinds_of_keys_live_in_one_file(file: Path) -> None:
    keys("new", "backend", file=file)
    keys("publish", "shop", *SHOP, file=file)
    listed = keys("list", file=file)
    made = read_publishable(file)["shop"]
    assert f"shop: {made.id}, for pages of https://shop.example; users: signed" in listed.stdout
    assert "1 publishable key(s)" in listed.stderr
    assert made.secret not in listed.output
    assert keys("rotate", "backend", file=file).exit_code == 0
    assert keys("revoke", "backend", file=file).exit_code == 0
    assert read_publishable(file) == {"shop": made}
    assert "keys" not in tomllib.loads(file.read_text())
