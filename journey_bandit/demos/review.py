"""Command `journey-bandit review`: an app with a history, made on the spot, to see what a reviewer sees.

Simulated people use a live service while versions are published, approved, refused, rolled back and shadowed beside it,
all with the commands that anybody would use. The people drive the service's clock, so everything they do and teach
follows from the seed.
"""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import httpx

from api.ledger import audit
from api.server import free_port
from api.stores import open_store
from bandit.errors import LedgerError, RemoteError
from journey_bandit import console, mlflow_server, processes
from journey_bandit.progress import progress
from simulations import scenario
from simulations.live import driver
from simulations.live.client import ServiceClient

_HOST, _APP, _STAGE, _SALT = "127.0.0.1", "travel", "cart", "review"


class ReviewHistory:
    """History of an app in the making: the servers of the demonstration, and what is done with them, step by step."""

    def __init__(self, folder: Path, mlflow: str, url: str, seed: int):
        self.folder, self.mlflow, self.url, self._seed = folder, mlflow, url, seed
        self.store = f"sqlite:///{folder / 'travel.db'}"

    def people(self, n: int) -> None:
        """Let `n` new simulated people pass through the stage `cart`, with their outcomes reported to the service."""
        world = scenario.load(_APP)
        with ServiceClient(self.url) as client, progress("people in the cart", n) as advance:
            spec = client.snapshot(_STAGE).stage_spec
            done = driver.drive(client, world, spec, seed=self._seed, users=n, progress=advance)
        self._seed += 1
        if done.duplicates:
            raise RemoteError("these people were here before: give another --folder or --seed")

    def run(self, *words: str, fails: bool | None = False) -> bool:
        """Run one command as a person types it; whether it ended well. Raises RemoteError if that is not as expected
        (`fails`; None: either).
        """
        shown = " ".join(f"'{w}'" if " " in w else w for w in words)
        console.out.print(f"[bold]$ journey-bandit {shown}[/]")
        command = [sys.executable, "-m", "journey_bandit", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=self.env())
        said = (done.stdout + (done.stderr if fails or done.returncode else "")).strip()
        console.out.print(without_links(said, self.mlflow), soft_wrap=True)
        if fails is not None and (done.returncode != 0) != fails:
            raise RemoteError(f"`journey-bandit {shown}` ended with status {done.returncode}: {done.stderr[-1000:]}")
        return done.returncode == 0

    def env(self) -> dict[str, str]:
        """Environment variables of the commands: those of this process, where the ledger and MLflow are, and USER, the
        person whom approvals name.
        """
        import os

        more = {"JOURNEY_BANDIT_MLFLOW": self.mlflow, "JOURNEY_BANDIT_STORE": self.store, "USER": "ana"}
        return {**os.environ, **more}


def without_links(said: str, mlflow: str) -> str:
    """What a command said, without links into the MLflow server at `mlflow`: it stops when the history is made, and
    who reads them then would find nothing.
    """
    return re.sub(rf"{re.escape(mlflow)}/\S*", "(in MLflow, see `ui` at the end)", said)


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("review-output"), show_default=True)
@click.option(
    "--users",
    default=40_000,
    show_default=True,
    type=click.IntRange(min=4000),
    help="Simulated people; the rule needs most of them.",
)
@click.option("--seed", default=700, show_default=True)
@click.option("--study/--no-study", default=True, help="Also compare policies offline, over several seeds.")
def review(folder: Path, users: int, seed: int, study: bool) -> None:
    """Make an app with a history: four versions, two promotions, one refusal, one rollback, one shadow.

    With all 40,000 people and the study it takes a quarter of an hour or more on two cores.
    """
    console.need_mlflow()
    folder = folder.resolve()
    if (folder / "travel.db").exists():
        raise RemoteError(f"{folder} has a history already: remove it, or give another --folder")
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with ExitStack() as stack:
        story = stack.enter_context(_running(folder, seed))
        _tell(story, users)
        if study:
            _study(story)
        found = httpx.get(f"{story.url}/health/ready", timeout=10).json()
        console.out.print(f"health: releases {found['releases']}, failing {found['failing'] or 'nothing'}")
    _verify(folder / "travel.db")
    console.out.print(f"\nThat took {(time.monotonic() - begun) / 60:.0f} minutes.")
    console.out.print("The service is stopped; every belief was rebuilt from its ledger: equal, bit for bit.")
    console.out.print(f"To look at it: journey-bandit ui --folder {folder / 'mlflow'}", soft_wrap=True)


@contextmanager
def _running(folder: Path, seed: int) -> Iterator[ReviewHistory]:
    """MLflow, the service and the sync between them."""
    mlflow, url = (f"http://{_HOST}:{free_port(_HOST)}" for _ in range(2))
    story = ReviewHistory(folder, mlflow, url, seed)
    with ExitStack() as stack:
        tracking = mlflow_server.start(folder / "mlflow", _HOST, int(mlflow.rsplit(":", 1)[1]))
        stack.enter_context(processes.stopping(tracking))
        where = ("--app", _APP, "--store", story.store, "--port", url.rsplit(":", 1)[1], "--salt", _SALT)
        log = folder / "service.log"
        service = processes.serve(*where, "--dev", "--clock", "driven", log=log)
        stack.enter_context(processes.stopping(service))
        processes.wait(service, f"{url}/health/ready", log)
        processes.wait(tracking, f"{mlflow}/health", folder / "mlflow" / "server.log")
        stack.enter_context(_syncing(story))
        yield story


@contextmanager
def _syncing(story: ReviewHistory) -> Iterator[None]:
    words = ("registry", "sync", "--url", story.url, "--every", "1", "--publish-every", "3600")
    command = [sys.executable, "-m", "journey_bandit", *words, "--spool", str(story.folder / "spool")]
    with (story.folder / "sync.log").open("ab") as file:
        sync = subprocess.Popen(command, stdout=file, stderr=file, env=story.env())
    with processes.stopping(sync):
        yield


def _tell(story: ReviewHistory, users: int) -> None:
    part, wait = users // 20, ("--url", story.url)
    console.out.rule("[bold]Nothing is known yet")
    story.people(200)
    story.run("publish", _STAGE, "--policy", "uniform", "--why", "a start that teaches most")
    start = ("--why", "start: learn what works", "--override", "nothing to compare with yet; 4 weeks at most")
    story.run("promote", _APP, _STAGE, "1", *start, *wait)
    story.people(15 * part)
    console.out.rule("[bold]What was learned goes live, if the gate lets it")
    story.run(
        "publish", _STAGE, "--policy", "linear:alpha=0.5", "--hold-back", "0.65", "--why", "learned from the start"
    )
    approve = ("promote", _APP, _STAGE, "2", "--store", story.store, *wait)
    if not story.run(*approve, "--why", "better than the start by the rule", fails=None):
        story.run(*approve, "--why", "this story goes on", "--override", "too few people for the rule to be sure")
    story.people(2 * part)
    console.out.rule("[bold]A candidate that the gate refuses, forced, and taken back")
    story.run("publish", _STAGE, "--policy", "fixed:discount_10", "--why", "campaign: 10 % for everybody")
    story.run("promote", _APP, _STAGE, "3", "--why", "campaign", fails=True)
    forced = ("--why", "campaign", "--override", "asked for by marketing, one weekend")
    story.run("promote", _APP, _STAGE, "3", *forced, *wait)
    story.people(part)
    story.run("rollback", _APP, _STAGE, "--why", "costs more than it brings", *wait)
    console.out.rule("[bold]A challenger, scored on live traffic without being shown")
    story.run(
        "publish",
        _STAGE,
        "--policy",
        "hierarchical",
        "--hold-back",
        "0.2",
        "--shadow",
        "--why",
        "pools nudges of a type",
    )
    story.people(part)
    story.run("shadow", _APP, _STAGE, "--store", story.store)
    story.run("registry", "audit", _APP, _STAGE)


def _study(story: ReviewHistory) -> None:
    console.out.rule("[bold]The same app offline: policies on the same people, over seeds")
    out = str(story.folder / "simulation")
    policies = [word for name in ("default", "hierarchical", "uniform") for word in ("--policy", name)]
    size = ("--users", "600", "--days", "21", "--seeds", "4", "--out", out)
    story.run("simulate", "--app", _APP, *policies, *size, "--mlflow", story.mlflow)


def _verify(path: Path) -> None:
    opened = open_store(f"sqlite:///{path}", read_only=True)
    with contextlib.closing(opened):
        for result in audit.rebuild(opened, audit.stages(opened)):
            if not result.equal:
                raise LedgerError(f"{path}: the belief of {result.stage} is not what its ledger adds up to")
