"""Registry of policies in MLflow: versions as data, moves that leave a trail, and what is approved now.

A registered model is a stage: <app>-<stage>. What may be served is what the last move says (see `approvals`), a record
that is written before the alias is moved: an alias alone, clicked in a browser, approves nothing.
"""

import hashlib
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import mlflow
import msgspec
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc import log_model
from mlflow.tracking import MlflowClient
from mlflow.types.schema import AnyType, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from bandit.errors import NotFound, RemoteError, SnapshotError
from bandit.snapshot import Snapshot, pack, unpack
from experiments.mlflow import approvals, reviewer_view, scoring
from experiments.mlflow.approvals import Approval, ApprovalRecord, RegistryState, in_registry
from experiments.mlflow.audit_table import AuditTable
from experiments.mlflow.client_errors import ABSENT, collecting_failures, one_line, remote_errors
from experiments.mlflow.get_or_create import registered_model, registered_model_of

CHAMPION, CHALLENGER = "champion", "challenger"
_MOVE, _HEAD = "journey_bandit.move", "journey_bandit.audit_head"
NOTE = "mlflow.note.content"
"""Tag of a run that MLflow shows as its description."""

_OPEN, _RECENT, _NOTE_CHARS = ("waiting", "approved", "being judged"), 50, 8000
_TEXT = 5000  # of a tag or a description, on every database


def name_of(app: str, stage: str) -> str:
    """Name of the registered model of a stage, which is also the experiment of its runs: <app>-<stage>."""
    return f"{app}-{stage}"


def digest(files: Mapping[str, bytes]) -> str:
    """Digest of a published policy: SHA-256, hexadecimal, of policy.json, which holds the digest of the other file."""
    return hashlib.sha256(files["policy.json"]).hexdigest()


class Registry:
    """Client of the policy registry on one MLflow server, at `uri`. The command line uses it to publish and approve,
    the registry synchronisation of the service to find out what is approved.

    Every method raises RemoteError when MLflow does not answer or refuses, except where it says that nothing is raised.
    Making one points MLflow's global tracking URI at `uri`, so a process talks to one server; methods block and are not
    meant for an event loop. Nothing that is loaded is executed: policies are read as data, never as code.

        state = Registry("http://127.0.0.1:5000").standing("fashion-browsing")
        state.serves  # the approved move, or None
    """

    def __init__(self, uri: str):
        self.uri = uri
        self._client = MlflowClient(uri, registry_uri=uri)
        mlflow.set_tracking_uri(uri)  # what resolves models:/… and runs:/… knows no client
        mlflow.set_registry_uri(uri)

    # -- versions ----------------------------------------------------------------------------------------------

    def log_policy(self, run_id: str, snapshot: Snapshot, packages: Sequence[str]) -> str:
        """Log the policy as a model of the run `run_id`; returns the model's id. `packages`: the pip requirements
        that can load it.
        """
        files = pack(snapshot)
        spec = snapshot.stage_spec
        # MLflow takes no 3 for a double and no missing boolean; `scoring` checks every value itself
        named = {name: AnyType() for name in spec.features} | scoring.EXTRA  # type: ignore[no-untyped-call]
        inputs = Schema([ColSpec(t, name, required=False) for name, t in named.items()])
        numbers = [ColSpec("double", f"p_{arm}") for arm in spec.arms]
        outputs = Schema([ColSpec("string", "arm"), ColSpec("double", "propensity"), *numbers])
        params = ParamSchema([ParamSpec("seed", DataType.long, 0), ParamSpec("salt", DataType.string, "")])
        tag = spec.policy.__struct_config__.tag
        with remote_errors(self.uri), tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
            folder = Path(temporary) / "policy"
            folder.mkdir()
            for name, data in files.items():
                (folder / name).write_bytes(data)
            with mlflow.start_run(run_id=run_id):
                warnings.simplefilter("ignore", UserWarning)  # no input example: running the model here proves nothing
                info = log_model(
                    name=f"{snapshot.stage}-{tag}-at-{snapshot.version}",  # settlements; v3 is a version
                    python_model=str(Path(scoring.__file__).with_name("model_entry.py")),
                    artifacts={"policy": str(folder)},
                    pip_requirements=list(packages),
                    signature=ModelSignature(inputs=inputs, outputs=outputs, params=params),
                    params={"algorithm": str(tag), "stage": snapshot.stage, "floor": f"{spec.common_floor:g}"},
                    tags={"policy_sha256": digest(files), "belief_sha256": snapshot.belief.digest()},
                )
        return str(info.model_id)

    def register(self, model: str, model_id: str, run_id: str, description: str, tags: Mapping[str, str]) -> str:
        """Make a new version of the registered model, and the model itself if it is not there; returns the version's
        number as text. Texts are cut at 5,000 characters, which every database takes.
        """
        with remote_errors(self.uri):
            registered_model_of(self._client, model, "Nothing approved yet.")
            source = f"models:/{model_id}"
            made = self._client.create_model_version(
                model, source, run_id=run_id, description=description[:_TEXT], model_id=model_id, await_creation_for=0,
                tags={k: v[:_TEXT] for k, v in tags.items()},
            )  # fmt: skip
        return str(made.version)

    def describe(self, model: str, version: str, text: str) -> None:
        """Replace the description of a version; it is cut at 5,000 characters."""
        with remote_errors(self.uri):
            self._client.update_model_version(model, version, description=text[:_TEXT])

    def tags(self, model: str, version: str) -> dict[str, str]:
        """Tags of a version. Raises NotFound if there is no such version."""
        with remote_errors(self.uri):
            try:
                return dict(self._client.get_model_version(model, version).tags)
            except MlflowException as error:
                if error.error_code not in ABSENT:
                    raise
        raise NotFound("version", f"{model} has no version {version}", f"one of {', '.join(self.versions(model))}")

    def run_of(self, model: str, version: str) -> str:
        """Id of the run that logged a version."""
        with remote_errors(self.uri):
            return str(self._client.get_model_version(model, version).run_id)

    def versions(self, model: str) -> list[str]:
        """Numbers of all versions of a model as text, oldest first (at most 1,000); none if there is no such model."""
        with remote_errors(self.uri):
            found = self._client.search_model_versions(f"name = '{model}'", max_results=1000)
        return sorted((str(v.version) for v in found), key=int)

    def annotate(self, model: str, version: str, tags: Mapping[str, str]) -> list[str]:
        """Set tags of a version, and on its run what the reviewer's view shows (gate, review, reviewer).

        Returns a sentence for each that could not be told.

        Nothing is raised: these tags are for people to read, and nothing waits for them.
        """
        untold: list[str] = []
        with collecting_failures(f"tags of version {version}", untold):
            for key, value in tags.items():
                self._client.set_model_version_tag(model, version, key, value[:_TEXT])
        with collecting_failures(f"tags of the run of version {version}", untold):
            run = str(self._client.get_model_version(model, version).run_id)
            for key, value in reviewer_view.run_tags(tags).items():
                self._client.set_tag(run, key, value)
        return untold

    def metrics(self, model: str, version: str) -> dict[str, float]:
        """Last values of the metrics of the run that logged a version."""
        with remote_errors(self.uri):
            run = self._client.get_model_version(model, version).run_id
            return dict(self._client.get_run(str(run)).data.metrics)

    def scored(self, model: str, version: str, metrics: Mapping[str, float], step: int, now: int) -> None:
        """Log how a challenger does to the run of its version: one point at `step` for each metric. `now`: milliseconds
        since 1970.
        """
        run = self.run_of(model, version)
        with remote_errors(self.uri):
            self._client.log_batch(run, metrics=[Metric(k, v, now, step) for k, v in metrics.items()])

    def files(self, model: str, version: str, sha256: str = "") -> dict[str, bytes]:
        """{file name: bytes} of policy.json and posterior.npz of a version, never its code.

        Raises NotFound if there is no such version, and SnapshotError if `sha256` is given and policy.json has another
        digest: then it is not the one that was approved.
        """
        self.tags(model, version)
        with remote_errors(self.uri), tempfile.TemporaryDirectory() as temporary:
            uri = f"models:/{model}/{version}/artifacts/policy"
            found = mlflow.artifacts.download_artifacts(
                artifact_uri=uri, dst_path=temporary, tracking_uri=self.uri, registry_uri=self.uri
            )
            files = {name: (Path(found) / name).read_bytes() for name in scoring.FILES}
        if sha256 and digest(files) != sha256:
            raise SnapshotError(f"{model} {version}: policy.json is not the one that was approved (sha256 differs)")
        return files

    def snapshot(self, model: str, version: str) -> Snapshot:
        """The snapshot of a version, read and checked. Raises NotFound if there is no such version, SnapshotError if
        its files cannot be trusted.
        """
        return unpack(self.files(model, version))

    def refresh(self, model: str, as_of: str, earns: str, answers: Mapping[int, str]) -> list[str]:
        """Say anew what changes after a review was written: the page of the model (what is live as of `as_of`, ISO
        8601, and what it `earns`), and the `answers`, by number, on runs of versions that somebody may still decide on.
        Returns a sentence for each that could not be told; nothing is raised.
        """
        untold: list[str] = []
        with collecting_failures("the description of the model", untold):
            found = registered_model(self._client, model)
            lines = self._readable_audit(model, untold) if found is not None else []
            if lines:
                page = approvals.model_page(model, lines, as_of, earns)
                self._client.update_registered_model(model, description=page[:_TEXT])
        with collecting_failures("the answers on runs", untold):
            for one in self._client.search_model_versions(f"name = '{model}'", max_results=_RECENT):
                if one.tags.get("review") in _OPEN:
                    self._answer_anew(str(one.run_id), answers)
        return untold

    def _answer_anew(self, run: str, answers: Mapping[int, str]) -> None:
        """Replace answers in the description of a run, each of which is a line that begins with its number."""
        note = str(self._client.get_run(run).data.tags.get(NOTE, ""))
        lines = [_answered(line, answers) for line in note.split("\n")]
        if "\n".join(lines) != note:
            self._client.set_tag(run, NOTE, "\n".join(lines)[:_NOTE_CHARS])

    # -- what is approved --------------------------------------------------------------------------------------

    def standing(self, model: str) -> RegistryState:
        """What the registry says of a model now: its aliases and the last recorded move. All None for a model that does
        not exist. The service calls it at every synchronisation.
        """
        with remote_errors(self.uri):
            found = registered_model(self._client, model)
        if found is None:
            return RegistryState(model, None, None, None)
        text = found.tags.get(_MOVE)
        aliases = {alias: str(version) for alias, version in dict(found.aliases).items()}
        try:
            move = msgspec.json.decode(text, type=Approval) if text else None
        except msgspec.MsgspecError as error:
            raise RemoteError(f"{model}: the tag {_MOVE} cannot be read: {error}") from error
        return RegistryState(model, aliases.get(CHAMPION), aliases.get(CHALLENGER), move)

    def challenge(self, model: str, version: str | None) -> None:
        """Set the alias challenger, the version that is scored as a shadow; with None, remove it."""
        with remote_errors(self.uri):
            if version is None:
                self._client.delete_registered_model_alias(model, CHALLENGER)
            else:
                self._client.set_registered_model_alias(model, CHALLENGER, version)

    def audit(self, model: str) -> list[Approval]:
        """Every move that was made, oldest first, checked as a chain. Raises NotFound if there is no such model,
        RemoteError if the trail was changed.

        Where the audit table was deleted, the chain begins with what the model itself remembers (see
        `approvals.lost_lines`).
        """
        with remote_errors(self.uri):
            found = registered_model(self._client, model)
            if found is None:
                raise NotFound("model", f"{model} is not in the registry", "publish a policy first")
            lines = AuditTable(self._client, model).read()
        standing = self.standing(model)
        return approvals.checked_chain(lines, standing.serves, found.tags.get(_HEAD))

    def move(self, model: str, new: Approval, tags: Callable[[Approval], Mapping[str, str]]) -> ApprovalRecord:
        """Make a move, an approval or a rollback: what the service waits for first, then what people read. `tags`:
        gives the tags of the new version once its move is numbered.

        The version's review tag, the record and the alias are the move: killed before the alias, nothing new is served,
        and the same command again completes it. The audit line, the page of the model and the tags of runs follow;
        whatever of these cannot be told is named in the result and undoes nothing.
        """
        untold: list[str] = []
        done = self._readable_audit(model, untold)
        standing = self.standing(model)
        recorded = standing.move
        cut_short = (
            recorded is not None and standing.serves is None and recorded.number > (done[-1].number if done else 0)
        )
        repeated = cut_short and recorded is not None and (recorded.version, recorded.kind) == (new.version, new.kind)
        move = recorded if repeated and recorded is not None else approvals.next_approval(done, new)
        with remote_errors(self.uri):
            if move.version and move.kind == "promote":
                self._client.set_model_version_tag(model, move.version, "review", "approved")
            self._client.set_registered_model_tag(model, _MOVE, msgspec.json.encode(move).decode())
            self._move_alias(model, move, standing.champion, untold)
        lines = [*done, move]
        with collecting_failures(f"audit line {move.number}", untold):
            untold += AuditTable(self._client, model).write(lines)
            self._client.set_registered_model_tag(model, _HEAD, move.digest())
        with collecting_failures("the description of the model", untold):
            self._client.update_registered_model(model, description=approvals.model_page(model, lines)[:_TEXT])
        if in_registry(move.version):
            untold += self.annotate(model, move.version, tags(move))
        if in_registry(move.replaces) and move.replaces != move.version:
            untold += self.annotate(model, move.replaces, approvals.replacement_tags(move))
        return ApprovalRecord(move, tuple(untold))

    def _move_alias(self, model: str, move: Approval, champion: str | None, untold: list[str]) -> None:
        """Set the alias champion to the version that the move names; remove the alias if there is none."""
        if not in_registry(move.version):
            if champion is not None:
                self._client.delete_registered_model_alias(model, CHAMPION)
            return
        try:
            self._client.set_registered_model_alias(model, CHAMPION, move.version)
        except MlflowException as error:
            if move.kind != "rollback" or error.error_code not in ABSENT:
                raise
            # the version is gone from the registry, and the service has its bytes: no alias can name it
            untold.append(f"the alias {CHAMPION}: {one_line(error)}")
            if champion is not None:
                self._client.delete_registered_model_alias(model, CHAMPION)

    def _readable_audit(self, model: str, untold: list[str]) -> list[Approval]:
        """The chain of moves; where the audit table cannot be read, the served move alone, and why in `untold`."""
        try:
            return self.audit(model)
        except RemoteError as error:
            untold.append(f"the audit table: {error}")
            move = self.standing(model).serves
            return [move] if move else []


def _answered(line: str, answers: Mapping[int, str]) -> str:
    """A line of a description with the answer of today: "14. **question** answer" if `answers` has number 14."""
    number, _, rest = line.partition(". **")
    question, end, _ = rest.partition("** ")
    if not number.isdigit() or not end or int(number) not in answers:
        return line
    return f"{number}. **{question}** {' '.join(answers[int(number)].split())}"
