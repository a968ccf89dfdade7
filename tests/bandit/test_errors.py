"""Errors reach the caller of a worker process as they were raised."""

import pickle

import pytest

from bandit import errors
from bandit.errors import CatalogueError, Conflict, InvalidRequest, JourneyBanditError, NotFound, PolicyError, Problem

MADE = [
    CatalogueError("my.toml", [Problem("a", "wrong", "mend it"), Problem("b", "missing", "give it")]),
    InvalidRequest(Problem("a", "wrong", "mend it"), Problem("b", "missing", "give it")),
    NotFound("app", "unknown", "one of these"),
    Conflict("id", "used", "another"),
    PolicyError("policy", "unknown", "one of these"),
    errors.RemoteError("no answer"),
    errors.Overloaded("later"),
]


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_in_another_process(error: JourneyBanditError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("no MLflow at http://ana:s3c:r@et@host:5000: start it", "no MLflow at http://***@host:5000: start it"),
        ("HTTPS://t0ken@host/a and sqlite+x://u:p@h/b", "HTTPS://***@host/a and sqlite+x://***@h/b"),
        ("http://host/mail?to=ana@example.org, or ana@host", "http://host/mail?to=ana@example.org, or ana@host"),
        ("sqlite:///a:b@c.db", "sqlite:///a:b@c.db"),
    ],
)
def test_the_user_part_of_an_address_is_masked(text: str, instead: str) -> None:
    assert errors.masked(text) == instead
