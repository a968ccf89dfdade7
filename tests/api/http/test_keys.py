"""API keys: made once, kept only as digests, checked exactly."""

import datetime as dt
import hashlib
import stat
import tomllib
from pathlib import Path

import pytest

from api.http.keys import SCOPES, ApiKeys, create, load
from api.times import microseconds
from bandit.errors import CatalogueError

TODAY = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
NOW = microseconds(TODAY)
DAY = dt.timedelta(days=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def test_a_new_key_opens_exactly_its_scopes(file: Path) -> None:
    shop, reader = create(file, "shop", ["decide", "reward"]), create(file, "reader-2", ["read"])
    keys = load(file)
    assert keys.scopes(shop, NOW) == ["decide", "reward"]
    assert keys.scopes(reader, NOW) == ["read"]


def test_nothing_but_the_whole_key_opens(file: Path) -> None:
    key = create(file, "shop", list(SCOPES))
    name, _, secret = key.partition(".")
    digest = hashlib.sha256(secret.encode()).hexdigest()
    keys = load(file)
    for presented in (
        "", ".", "shop", "shop.", secret, f".{secret}", f"Shop.{secret}", f"other.{secret}", key[:-1], f"{key}A",
        f" {key}", f"{key} ", key.swapcase(), f"shop.{digest}", f"{name}..{secret}", "\0", "é.é", "x" * 100_000,
    ):  # fmt: skip
        assert keys.scopes(presented, NOW) is None, presented[:80]


def test_the_file_holds_the_digest_and_not_the_secret(file: Path) -> None:
    secret = create(file, "shop", ["read"]).partition(".")[2]
    text = file.read_text(encoding="utf-8")
    assert secret not in text
    assert hashlib.sha256(secret.encode()).hexdigest() in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_secrets_are_long_and_never_the_same(file: Path) -> None:
    secrets = {create(file, f"k{n}", ["read"]).partition(".")[2] for n in range(20)}
    assert len(secrets) == 20
    assert min(map(len, secrets)) >= 32  # 24 random bytes in base64


def test_two_keys_live_side_by_side_so_that_one_can_replace_the_other(file: Path) -> None:
    old, new = create(file, "shop-1", ["decide"]), create(file, "shop-2", ["decide"])
    assert load(file).scopes(old, NOW) == load(file).scopes(new, NOW) == ["decide"]


def test_a_name_is_taken_once_and_the_file_stays_as_it_was(file: Path) -> None:
    create(file, "shop", ["read"])
    before = file.read_bytes()
    with pytest.raises(CatalogueError, match="choose another name"):
        create(file, "shop", ["decide"])
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["", "Shop", "a b", "a.b", "a]\n[keys.b", "é", "x" * 41, "../x", '"'], ids=ascii)
def test_a_name_that_would_not_do_in_the_file_is_refused(file: Path, name: str) -> None:
    with pytest.raises(CatalogueError, match="lower-case letters"):
        create(file, name, ["read"])
    assert not file.exists()


def test_a_key_can_be_added_to_a_file_somebody_edited(file: Path) -> None:
    """Editors leave files without a last line end, and people write comments."""
    file.write_text(f'[keys.old]\nsha256 = "{"0" * 64}"\nscopes = ["read"]  # the report', encoding="utf-8")
    key = create(file, "new", ["decide"])
    assert load(file).scopes(key, NOW) == ["decide"]
    assert tomllib.loads(file.read_text(encoding="utf-8"))["keys"].keys() == {"old", "new"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("keys = 1", ["keys"]),
        ("[keys.a]\n", ["keys.a.sha256", "keys.a.scopes"]),
        ('[keys.a]\nsha256 = "%s"\nscopes = ["write"]' % ("0" * 64), ["keys.a.scopes"]),
        ('[keys.a]\nsha256 = "%s"\nscopes = "read"' % ("0" * 64), ["keys.a.scopes"]),
        ('[keys.a]\nsha256 = "%s"\nscopes = []\nscope = 1' % ("0" * 64), ["keys.a.scope:"]),
        ('[keys.a]\nsha256 = "the secret itself"\nscopes = []', ["keys.a.sha256"]),
        ('[keys.a]\nsha256 = "%s"\nscopes = []' % ("é" * 64), ["keys.a.sha256"]),  # could not even be compared
        ('[keys.a]\nsha256 = "%s"\nscopes = []' % ("A" * 64), ["keys.a.sha256"]),
        ('[keys.a]\nsha256 = 7\nscopes = ["x"]\n[key.b]', ["keys.a.sha256", "keys.a.scopes", "key"]),
        ('[keys.a]\nsha256 = "%s"\nscopes = []\nexpires = "soon"' % ("0" * 64), ["keys.a.expires"]),
        ('[keys.a]\nsha256 = "%s"\nscopes = []\nexpires = 2026-01-01' % ("0" * 64), ["keys.a.expires"]),
        ('[keys.a]\nsha256 = "%s"\nscopes = []\nexpires = 2026-01-01T00:00:00' % ("0" * 64), ["keys.a.expires"]),
        ('[keys.a]\nsha256 = "%s"\nscopes = []\nearlier = [{ sha256 = "x" }]' % ("0" * 64), ["keys.a.earlier"]),
        ("[keys", ["(file)"]),
        ("[keys.a]\n[keys.a]", ["(file)"]),
    ],
)
def test_a_file_with_mistakes_is_refused_and_all_are_named(file: Path, text: str, named: list[str]) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CatalogueError) as refused:
        load(file)
    assert [word for word in [file.name, *named] if word not in str(refused.value)] == []


def test_a_file_that_cannot_be_read_is_refused_with_the_way_out(file: Path) -> None:
    with pytest.raises(CatalogueError, match="journey-bandit keys new"):
        load(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(CatalogueError, match="not UTF-8"):
        load(file)


def test_a_byte_order_mark_is_no_mistake_and_keys_can_be_added(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbf[keys.a]\r\nsha256 = "' + b"0" * 64 + b'"\r\nscopes = ["read"]\r\n')
    load(file)
    key = create(file, "b", ["read"])
    assert load(file).scopes(key, NOW) == ["read"]


def test_no_keys_open_nothing(file: Path) -> None:
    file.write_text("", encoding="utf-8")
    for keys in (ApiKeys({}), load(file)):
        assert keys.scopes("", NOW) is None
        assert keys.scopes("a.b", NOW) is None


# -- their time ------------------------------------------------------------------------------------------------


def test_a_key_opens_until_it_expires_and_not_from_then_on(file: Path) -> None:
    key = create(file, "shop", ["decide"], created=TODAY, expires=TODAY + 90 * DAY)
    keys, end = load(file), microseconds(TODAY + 90 * DAY)
    assert (keys.scopes(key, end - 1), keys.expired(key, end - 1)) == (["decide"], "")
    assert keys.scopes(key, end) is None
    assert "'shop' expired at 2026-05-30T12:00:00Z" in keys.expired(key, end)


def test_only_who_has_the_secret_is_told_that_a_key_expired(file: Path) -> None:
    key = create(file, "shop", ["decide"], expires=TODAY)
    keys = load(file)
    assert keys.expired(key, NOW)
    for presented in ("", "shop", "shop.", f"{key}A", key[:-1], "other.x"):
        assert (keys.scopes(presented, NOW), keys.expired(presented, NOW)) == (None, ""), presented


def test_a_key_without_an_end_never_expires_and_says_when_it_was_made(file: Path) -> None:
    key = create(file, "shop", ["decide"], created=TODAY)
    assert load(file).scopes(key, 2**62) == ["decide"]
    assert tomllib.loads(file.read_text(encoding="utf-8"))["keys"]["shop"]["created"] == TODAY
