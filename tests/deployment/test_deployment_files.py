"""Files to deploy with: they are what the programs that read them expect, they agree with each other, and the image is
made of what the wheel needs and nothing else.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import psycopg
import pytest
import yaml

from tests import postgres
from tests.waiting import COMMAND_PATIENCE
from tools import wheel
from tools.wheel import PIP, ROOT

FOLDER = ROOT / "docs" / "guides" / "deployment"
SCHEMA = json.loads((ROOT / "tests" / "data" / "compose-spec" / "compose-spec.json").read_text("utf-8"))
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
DEPLOYMENT, *_ = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text("utf-8"))
IMAGE = (FOLDER / "Dockerfile").read_text("utf-8")
REPLICAS = ("one", "two", "three")


def problems(compose: Any) -> list[str]:
    found = jsonschema.Draft202012Validator(SCHEMA).iter_errors(compose)
    return [f"{error.json_path}: {error.message}" for error in found]


def test_compose_is_as_its_specification_has_it() -> None:
    assert problems(COMPOSE) == []
    mistaken = json.loads(json.dumps(COMPOSE))
    mistaken["services"]["one"]["healthcheck"]["every"] = "5s"
    mistaken["volumes"] = ["ledger"]
    assert len(problems(mistaken)) >= 2


def test_what_compose_mounts_names_and_waits_for_is_there() -> None:
    services = COMPOSE["services"]
    made = {"shop.toml", "keys.toml"}  # of who deploys
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= services.keys()
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            known = source in COMPOSE["volumes"] or Path(source).name in made or (FOLDER / source).is_file()
            assert known, (name, volume)
        if "build" in service:
            build = service["build"]
            assert (FOLDER / build["context"]).resolve() == ROOT
            assert ROOT / build["dockerfile"] == FOLDER / "Dockerfile"
            assert set(build.get("args", {})) <= set(re.findall(r"^ARG (\w+)", IMAGE, re.MULTILINE))
    upstream = re.findall(r"(\w+):(\d+)", (FOLDER / "Caddyfile").read_text("utf-8"))
    assert upstream == [(name, "8080") for name in REPLICAS]


def test_the_program_of_each_service_is_in_its_image() -> None:
    """`mlflow` comes with an extra that the image of the service does not have."""
    extras = wheel_extras()
    default = re.search(r"^ARG EXTRAS=(\S+)$", IMAGE, re.MULTILINE)
    assert default is not None
    for name, service in COMPOSE["services"].items():
        if "build" in service:
            asked = service["build"].get("args", {}).get("EXTRAS", default[1]).split(",")
            assert set(asked) <= extras.keys(), name
            installed = {re.split(r"[^\w-]", one)[0] for extra in asked for one in extras[extra]}
            assert "psycopg" in installed, name
            assert service.get("entrypoint", "journey-bandit") in installed | {"journey-bandit"}, name


def wheel_extras() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found: dict[str, list[str]] = project["optional-dependencies"]
    return found


def test_containers_run_as_the_user_of_the_image_who_can_write_nothing_but_the_volumes_and_tmp() -> None:
    user = re.search(r"^USER (\d+)$", IMAGE, re.MULTILINE)
    assert user is not None
    assert f"useradd --uid {user[1]} " in IMAGE
    pod = DEPLOYMENT["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == int(user[1])
    (container,) = pod["containers"]
    rules = container["securityContext"]
    assert (rules["readOnlyRootFilesystem"], rules["allowPrivilegeEscalation"]) == (True, False)
    assert rules["capabilities"] == {"drop": ["ALL"]}
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert [path for path, read_only in mounts.items() if not read_only] == ["/tmp"]  # noqa: S108 - in a container
    for name in REPLICAS:
        service = COMPOSE["services"][name]
        assert (service["read_only"], service["tmpfs"], service["cap_drop"]) == (True, ["/tmp"], ["ALL"])  # noqa: S108
        assert all(volume.endswith(":ro") for volume in service["volumes"])
    folders = re.search(r"install --directory --owner=service (.*)$", IMAGE, re.MULTILINE)
    assert folders is not None
    assert "/artifacts" in folders[1].split()
    assert COMPOSE["services"]["mlflow"]["volumes"] == ["artifacts:/artifacts"]


def test_probes_and_health_checks_ask_what_the_service_serves() -> None:
    document = json.loads((ROOT / "docs" / "reference" / "openapi.json").read_text("utf-8"))
    (container,) = DEPLOYMENT["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        assert container[probe]["httpGet"]["path"] in document["paths"]
        assert ports[container[probe]["httpGet"]["port"]] == 8080
    (asked,) = re.findall(r"^\s+health_uri (\S+)$", (FOLDER / "Caddyfile").read_text("utf-8"), re.MULTILINE)
    assert asked in document["paths"]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image is built from: the checkout's files as far as the list of what is ignored lets them through."""
    rules = (FOLDER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    kept = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    anywhere = shutil.ignore_patterns(*(rule.removeprefix("**/") for rule in rules if rule.startswith("**/")))
    folder = tmp_path_factory.mktemp("context")
    for name in kept:
        source = ROOT / name
        assert source.exists(), f"{name} is not there"
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=anywhere)
        else:
            shutil.copy(source, folder / name)
    return folder


def test_the_image_is_built_from_what_the_wheel_needs(context: Path, tmp_path: Path) -> None:
    assert {path.name for path in context.iterdir()} >= {"constraints.txt", *wheel.PACKAGES}
    command = [sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(context)]
    subprocess.run(command, check=True, timeout=COMMAND_PATIENCE)
    (built,) = tmp_path.glob("*.whl")
    assert wheel.wrong_files(built) == []
    assert "COPY . /source" in IMAGE
    assert '-c /source/constraints.txt "/source[$EXTRAS]"' in IMAGE


@pytest.fixture
def database() -> Iterator[Path]:
    """Folder of the socket of a PostgreSQL server without other databases."""
    programs = postgres.binaries()
    if programs is None or not (programs / "psql").exists():
        pytest.skip("no PostgreSQL with psql: the script that makes its users is not run")
    folder = Path(tempfile.mkdtemp(prefix="jb-pg-"))
    server = postgres.PostgresServer(folder, programs, durable=False)
    server.start()
    try:
        yield folder
    finally:
        server.stop("immediate")
        shutil.rmtree(folder)


def test_the_users_that_the_addresses_name_are_made_with_databases_of_their_own(database: Path) -> None:
    programs = postgres.binaries()
    assert programs is not None
    environ = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PGHOST": str(database)}
    given = 'it\'s \\ a "secret" $HOME'
    subprocess.run(["sh", FOLDER / "users.sh"], env={**environ, "LEDGER_PASSWORD": given}, check=True)
    services = COMPOSE["services"]
    addresses = [services["one"]["environment"]["JOURNEY_BANDIT_STORE"]]
    addresses += [word for word in shlex.split(services["mlflow"]["command"]) if word.startswith("postgresql")]
    named = [re.fullmatch(r"postgresql(?:\+psycopg)?://(\w+)@database/(\w+)", address) for address in addresses]
    assert len(named) == 2
    for found in named:
        assert found is not None
        with psycopg.connect(host=str(database), user=found[1], dbname=found[2]) as conn:
            conn.execute("CREATE TABLE mine (id INTEGER)")
