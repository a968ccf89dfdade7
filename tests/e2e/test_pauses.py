"""A nudge is paused from the command line, the service is killed, and the nudge stays paused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from api.server import free_port
from bandit.errors import InvalidRequest, RemoteError
from journey_bandit.main import group
from tests.faults.service_process import ServiceProcess


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    running = ServiceProcess(tmp_path, free_port("127.0.0.1"), ["--app", "fashion", "--salt", "5a17"])
    running.start()
    yield running
    running.end()


def nudges(service: ServiceProcess, *arguments: str) -> str:
    done = CliRunner().invoke(group, ["nudges", *arguments, "--url", service.url])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def ask(service: ServiceProcess, stage: str) -> Any:
    return httpx.post(f"{service.url}/v1/decisions", json={"stage": stage, "user_id": "u"}).json()


def test_a_pause_survives_a_kill_and_ends_when_somebody_says_so(service: ServiceProcess) -> None:
    stage = httpx.get(f"{service.url}/v1/stages").json()["stages"][0]
    name, nudge = stage["stage"], next(one for one in stage["nudges"] if one != "none")
    said = nudges(service, "pause", name, nudge, "--who", "ana", "--reason", "refunds rose")
    assert said == f"1: {name}.{nudge} is not shown from the next decision on (ana: refunds rose)\n"
    service.kill()
    service.start()
    assert ask(service, name)["excluded"][nudge] == "paused by ana: refunds rose"
    nudges(service, "resume", name, nudge, "--who", "eva", "--reason", "mended")
    assert not ask(service, name)["excluded"].get(nudge, "").startswith("paused by")
    nudges(service, "pause", name, "--all", "--who", "eva", "--reason", "holiday")
    listed = nudges(service, "list").splitlines()
    assert [line.split()[0] for line in listed] == ["1", "2", "3"]
    assert listed[0].endswith("ana: refunds rose")
    assert f"pause   {name}.(all)" in listed[2]


def test_what_cannot_be_done_is_said(service: ServiceProcess) -> None:
    with pytest.raises(InvalidRequest, match="give a nudge or --all, not both"):
        nudges(service, "pause", "cart", "--reason", "r")
    with pytest.raises(RemoteError, match="no stage 'nowhere'"):
        nudges(service, "pause", "nowhere", "tip", "--reason", "r")


def test_a_ramp_survives_a_kill_and_ends_when_somebody_says_so(service: ServiceProcess) -> None:
    def traffic(*arguments: str) -> list[str]:
        done = CliRunner().invoke(group, ["traffic", *arguments, "--url", service.url])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output.splitlines()

    name = httpx.get(f"{service.url}/v1/stages").json()["stages"][0]["stage"]
    whole = ask(service, name)["propensities"]["none"]
    said = traffic("ramp", name, "10%", "--who", "ana", "--reason", "first day")
    assert said == [f"1: the ramp of {name} is 0.1 from the next decision on (ana: first day)"]
    service.kill()
    service.start()
    assert ask(service, name)["propensities"]["none"] > max(whole, 0.85)
    traffic("holdout", name, "0.05", "--who", "eva", "--reason", "measure it")
    shown = [line.split(None, 2) for line in traffic("show") if line.startswith(f"{name} ")]
    assert shown[0] == [name, "ramp", "0.1 (declared 1), set by ana: first day"]
    assert shown[1][2].startswith("0.05 (declared ")
    traffic("ramp", name, "declared", "--who", "ana", "--reason", "all is well")
    assert nudges(service, "list").splitlines()[2].split(None, 3)[3].startswith(f"ramp    {name} as declared")
    with pytest.raises(InvalidRequest, match="share: 'much' is no share"):
        traffic("ramp", name, "much", "--reason", "r")
    with pytest.raises(RemoteError, match="share"):
        traffic("ramp", name, "0", "--reason", "r")
