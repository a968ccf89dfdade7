"""Approver of a move: the MLflow user that the server has authenticated, or a name that nothing proves."""

import os

import httpx

from bandit.errors import InvalidRequest, Problem
from experiments.inference.wording import PROVEN

_USER, _PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
_SECONDS = 5.0


def approver(uri: str, name: str) -> str:
    """Who approves, as the audit table keeps it: "MLflow user NAME" where MLflow's server at `uri` asks for a user and
    takes the one that the environment names (`MLFLOW_TRACKING_USERNAME` and `…_PASSWORD`), else `name`, of which every
    text says that it is only said to be so. Raises InvalidRequest for a name that reads as if it were proven.
    """
    if name.startswith(PROVEN):
        problem = f"{name!r} reads as if a service or MLflow had authenticated it"
        raise InvalidRequest(Problem("who", problem, "give the person's name alone"))
    user = authenticated(uri)
    if user is None:
        return name
    return f"{PROVEN[1]}{user}" + ("" if name == user else f", for {name}")


def authenticated(uri: str) -> str | None:
    """Name of the MLflow user whom the server at `uri` takes; None where it asks for none, refuses, or is silent."""
    user, password = os.environ.get(_USER), os.environ.get(_PASSWORD)
    if not user or not password:
        return None
    url = f"{uri.rstrip('/')}/api/2.0/mlflow/users/get"
    try:
        mine = httpx.get(url, params={"username": user}, auth=(user, password), timeout=_SECONDS)
        anybody = httpx.get(url, params={"username": user}, timeout=_SECONDS)
        named = mine.json()["user"]["username"] if mine.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None
    return user if named == user and anybody.status_code == httpx.codes.UNAUTHORIZED else None
