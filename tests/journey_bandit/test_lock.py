"""The lock is that of the constraints (`make lock` makes it anew), and an audit of it cannot succeed unasked."""

import tomllib

import pytest

from tools.audit import verdict
from tools.lock import CONSTRAINTS, LOCK, ROOT, locked, pinned, text


def test_the_lock_has_the_versions_of_the_constraints_and_no_index() -> None:
    found = locked(LOCK.read_text(encoding="utf-8").splitlines())
    versions = pinned(CONSTRAINTS.read_text(encoding="utf-8").splitlines())
    assert {name: version for name, (version, _) in found.items()} == {name: versions[name] for name in found}
    assert all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for _, digest in found.values())


def test_the_lock_has_all_that_the_project_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["experiments"]]
    names = {one.split(">")[0].split("=")[0].strip().lower() for one in named}
    found = locked(LOCK.read_text(encoding="utf-8").splitlines())
    assert len(names) > 20
    assert names <= found.keys()


def test_what_pip_reports_becomes_a_line_each() -> None:
    def one(name: str, version: str, **more: object) -> dict[str, object]:
        return {"metadata": {"name": name, "version": version}, "download_info": more}

    report = {
        "environment": {"python_version": "3.11", "sys_platform": "linux", "platform_machine": "x86_64"},
        "install": [
            one("B_c", "2", archive_info={"hashes": {"sha256": "ef"}}),
            one("a", "1", archive_info={"hashes": {"sha256": "cd"}}),
            one("journey-bandit", "0", dir_info={}),
        ],
    }
    head, *lines = text(report).splitlines()
    assert "3.11 on linux x86_64" in head
    assert lines == ["a==1 --hash=sha256:cd", "b-c==2 --hash=sha256:ef"]
    with pytest.raises(ValueError, match="unpack"):
        locked(["--index-url somewhere"])


def test_an_audit_succeeds_only_if_every_package_was_looked_up() -> None:
    sound, unknown = {"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "not found"}
    bad = {"name": "c", "version": "3", "vulns": [{"id": "CVE-1", "fix_versions": ["4"]}]}
    assert verdict({"dependencies": [sound]}) == (0, ["1 packages: no vulnerability is known"])
    status, (said,) = verdict({"dependencies": [sound, unknown]})
    assert (status, said[:42]) == (2, "1 of 2 packages could not be looked up (b,")
    assert verdict({"dependencies": [sound, bad]}) == (1, ["c 3: CVE-1, mended in 4"])
    assert verdict({"dependencies": [bad, unknown]})[0] == 1
    with pytest.raises(ValueError, match="nothing"):
        verdict({"dependencies": []})
