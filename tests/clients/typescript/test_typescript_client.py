"""The TypeScript client: generated types are those of the OpenAPI document, strict types hold, the package has what it
should, and it talks to a real service.
"""

import json
import os
import re
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.server import free_port
from tests.clients import ledger_rows
from tests.faults.service_process import ServiceProcess
from tests.waiting import COMMAND_PATIENCE, PATIENCE

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "clients" / "typescript"
BIN = FOLDER / "node_modules" / ".bin"
GENERATED = ("openapi-typescript", str(ROOT / "docs" / "reference" / "openapi.json"), "--default-non-nullable", "false")
(EXAMPLE,) = re.findall(
    r"^```ts\n(.*?)^```", (ROOT / "docs" / "guides" / "clients.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
)
STRICT = {
    "strict": True, "noEmit": True, "target": "ES2022", "module": "NodeNext", "lib": ["ES2022", "DOM"], "types": [],
    "exactOptionalPropertyTypes": True, "noUncheckedIndexedAccess": True, "skipLibCheck": False,
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    not shutil.which("node") or not all((BIN / name).exists() for name in ("tsc", "openapi-typescript")),
    reason="needs node, and what `make clients` installs in clients/typescript",
)


class FailedCommand(Exception):
    """A command ended with another status than 0; what it printed."""


def run(*command: str, cwd: Path = FOLDER, **environ: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=COMMAND_PATIENCE,
        check=False,
    )
    if done.returncode != 0:
        raise FailedCommand(done.stdout + done.stderr)
    return done.stdout


def tool(name: str, *arguments: str, cwd: Path = FOLDER) -> str:
    return run(str(BIN / name), *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a program that has the package, built, among its own; strict types."""
    folder = tmp_path_factory.mktemp("user")
    package = folder / "node_modules" / "journey-bandit-client"
    package.mkdir(parents=True)
    shutil.copy(FOLDER / "package.json", package)
    tool("tsc", "--project", "tsconfig.json", "--outDir", str(package / "dist"))
    (folder / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    (folder / "example.ts").write_text(EXAMPLE, encoding="utf-8")
    return folder


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    process = ServiceProcess(tmp_path, free_port("127.0.0.1"), ["--app", "travel", "--salt", "docs"])
    try:
        process.start()
        yield process
    finally:
        process.end()


def checked(user: Path, *names: str) -> str:
    """Strict types of files of the user's."""
    configuration = {"compilerOptions": STRICT, "files": names}
    (user / "tsconfig.json").write_text(json.dumps(configuration), encoding="utf-8")
    return tool("tsc", "--project", str(user), cwd=user)


def test_the_generated_types_are_those_of_the_document(tmp_path: Path) -> None:
    """If not: python -m tools.openapi, then `npm run generate` in clients/typescript."""
    name, *options = GENERATED
    tool(name, *options, "--output", str(tmp_path / "openapi.ts"))
    assert (tmp_path / "openapi.ts").read_text("utf-8") == (FOLDER / "src" / "openapi.ts").read_text("utf-8")
    script = json.loads((FOLDER / "package.json").read_text("utf-8"))["scripts"]["generate"]
    assert script.split()[2:4] == options[1:3]


def test_strict_types_hold_and_mistakes_are_told(user: Path) -> None:
    checked(user, "example.ts")
    mistakes = {
        "field.ts": ("decision.nudge.id", "decision.nudge_id", "nudge_id"),
        "request.ts": ('user_id: "u-1", stage', 'user: "u-1", stage', "user"),
        "value.ts": ("{ price: 120 }, deferred", "{ price: [1] }, deferred", "number"),
        "degraded.ts": ("await client.activate(decision)", "const id: string = decision.decision_id", "null"),
    }
    for name, (right, wrong, _) in mistakes.items():
        assert right in EXAMPLE
        (user / name).write_text(EXAMPLE.replace(right, wrong), encoding="utf-8")
    with pytest.raises(FailedCommand) as told:
        checked(user, *mistakes)
    for name, (_, _, words) in mistakes.items():
        assert re.search(rf"^{name}.*error TS.*(\n .*)*{words}", str(told.value), re.MULTILINE), name


def test_the_package_has_code_and_types_and_nothing_else(user: Path, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    for name in ("package.json", "README.md", "LICENSE"):
        shutil.copy(FOLDER / name, folder)
    shutil.copytree(FOLDER / "src", folder / "src")
    shutil.copytree(user / "node_modules" / "journey-bandit-client" / "dist", folder / "dist")
    (listed,) = json.loads(run("npm", "pack", "--dry-run", "--json", "--ignore-scripts", cwd=folder))
    modules = [path.stem for path in (FOLDER / "src").glob("*.ts")]
    built = {f"dist/{name}.{end}" for name in modules for end in ("js", "d.ts")}
    assert {file["path"] for file in listed["files"]} == built | {"package.json", "README.md", "LICENSE"}
    package = json.loads((FOLDER / "package.json").read_text("utf-8"))
    assert "dependencies" not in package
    assert {package["exports"]["."]["types"], package["types"]} == {"./dist/index.d.ts"}
    assert (FOLDER / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert version
    assert package["version"] == version[1]


def test_retries_deadlines_errors_and_degraded_mode(user: Path) -> None:
    """The claims are in client.test.mjs."""
    built = (user / "node_modules" / "journey-bandit-client" / "dist" / "index.js").as_uri()
    told = run(
        "node", "--test", "--test-reporter", "tap", str(Path(__file__).with_name("client.test.mjs")), CLIENT=built
    )
    assert re.search(r"^# fail 0$", told, re.MULTILINE)
    passed = re.search(r"^# pass (\d+)$", told, re.MULTILINE)
    assert passed
    assert int(passed[1]) > 30


ROUND_TRIP = """
import { IdConflictError, JourneyClient, NotFoundError, userEvent } from "journey-bandit-client";

const client = new JourneyClient(process.argv[2], { decideSeconds: 300, reportSeconds: 300 });
const event = userEvent({ event: "Flight Chosen", user_id: "u-1", properties: { route: "VIE-LIS" } });
const [first] = await client.events([event]);
const [again] = await client.events([event]);
const request = { user_id: "u-1", stage: "cart", context: { price: 120 }, decision_id: crypto.randomUUID() };
const decision = await client.decide(request);
const repeated = await client.decide(request);
const many = await client.decideMany(Array.from({ length: 20 }, (_, n) => ({ user_id: `u${n}`, stage: "cart" })));
const outcomes = many.map((one) => ({ decision_id: one.decision_id, kind: "reward", value: 1 }));
const reported = await client.reportMany([...outcomes, outcomes[0]]);
const caught = async (call) => call.then(() => "nothing", (error) => error.constructor);
console.log(JSON.stringify({
  events: [first.duplicate, again.duplicate],
  decisions: [decision.degraded, decision.duplicate, repeated.duplicate, repeated.nudge.id === decision.nudge.id],
  journey: (await client.journey("u-1")).events.offer_chosen.count,
  outcomes: [(await client.activate(decision)).recorded, (await client.reward(decision, 1)).duplicate,
    (await client.reward(decision, 1)).duplicate, (await client.retract(decision)).recorded,
    (await client.optOut(decision)).duplicate, (await client.optOut(decision)).duplicate],
  kinds: (await client.receipt(decision.decision_id)).outcomes.map((one) => one.kind).sort(),
  batch: [new Set(many.map((one) => one.decision_id)).size, reported.filter((one) => one.duplicate).length],
  refused: [await caught(client.decide({ ...request, context: { price: 121 } })) === IdConflictError,
    await caught(client.reward(crypto.randomUUID(), 1)) === NotFoundError],
}));
"""


def test_a_round_trip_and_the_example_of_the_guide(user: Path, service: ServiceProcess) -> None:
    url = service.url
    (user / "trip.mjs").write_text(ROUND_TRIP, encoding="utf-8")
    assert json.loads(run("node", "trip.mjs", url, cwd=user)) == {
        "events": [False, True],
        "decisions": [False, False, True, True],
        "journey": 1,
        "outcomes": [True, False, True, True, False, True],
        "kinds": ["activation", "opt_out", "retraction", "reward"],
        "batch": [20, 1],
        "refused": [True, True],
    }
    source = EXAMPLE.replace("http://localhost:8080", url)
    (user / "example.ts").write_text(source, encoding="utf-8")
    (user / "tsconfig.json").write_text(
        json.dumps({"compilerOptions": STRICT | {"noEmit": False}, "files": ["example.ts"]}), encoding="utf-8"
    )
    tool("tsc", "--project", str(user), cwd=user)
    told = run("node", "example.js", cwd=user).splitlines()
    assert re.fullmatch(r"show \w+ decided", told[0])
    assert told[1:] == ["reward recorded: true"]


CALLERS, KILLS = 8, 3
UNTIL_TOLD = """
import { JourneyClient, userEvent } from "journey-bandit-client";

const [url, callers, patience] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const kept = { sent: 0, degraded: 0, decisions: [], rewarded: [], events: [] };
let going = true;
process.stdin.on("end", () => { going = false; }).resume();
const client = new JourneyClient(url, {
  fetch: (input, init) => { kept.sent += 1; return fetch(input, init); },
  decideSeconds: patience, reportSeconds: patience, retries: { tries: 1e6, shortest: 0.01, longest: 0.1 },
});

async function caller(number) {
  for (let n = 0; going; n += 1) {
    const user_id = `u${number}-${n}`;
    const decision = await client.decide({ user_id, stage: "cart", context: { price: 20 + ((37 * n) % 2980) } });
    kept.degraded += decision.degraded;
    kept.decisions.push([decision.decision_id, decision.nudge.id]);
    console.log("decided");
    if ((number + n) % 2) {
      await client.reward(decision, 1);
      kept.rewarded.push(decision.decision_id);
    }
    const events = Array.from({ length: 1 + (n % 3) }, () => userEvent({ event: "Flight Viewed", user_id }));
    await client.events(events);
    kept.events.push(...events.map((one) => one.event_id));
  }
}
await Promise.all(Array.from({ length: callers }, (_, number) => caller(number)));
console.log(JSON.stringify(kept));
"""


def test_retries_through_a_service_that_is_killed_lose_nothing_and_count_nothing_twice(
    user: Path, service: ServiceProcess, tmp_path: Path
) -> None:
    (user / "until_told.mjs").write_text(UNTIL_TOLD, encoding="utf-8")
    command = ["node", "until_told.mjs", service.url, str(CALLERS), str(PATIENCE)]
    with subprocess.Popen(command, cwd=user, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdin is not None
        assert node.stdout is not None
        hangs = threading.Timer(COMMAND_PATIENCE, node.kill)
        hangs.start()
        try:
            for kill in range(KILLS):
                assert [node.stdout.readline() for _ in range(60 + 37 * kill)] == ["decided\n"] * (60 + 37 * kill)
                service.kill()
                service.start()
            assert [node.stdout.readline() for _ in range(60)] == ["decided\n"] * 60
            node.stdin.close()
            *_, last = node.stdout
        finally:
            hangs.cancel()
            node.kill()
    assert service.stop() == 0, service.log.read_text()
    kept = json.loads(last)
    assert kept["degraded"] == 0
    calls = 2 * len(kept["decisions"]) + len(kept["rewarded"])
    assert kept["sent"] >= calls + KILLS, "no request was ever interrupted"
    assert ledger_rows.read(tmp_path / "ledger.db") == (
        {uuid.UUID(decision): nudge for decision, nudge in kept["decisions"]},
        sorted(map(uuid.UUID, kept["rewarded"])),
        sorted(kept["events"]),
    )
