"""Catalogues of the example apps: the shipped ones, with what a trial needs changed, written to a folder."""

import importlib.resources
import shutil
from pathlib import Path
from typing import Any

import tomlkit

from bandit.catalogue.loading import read_shipped
from journey_bandit.demos.example_apps.app_specs import ExampleApp


def write_catalogue(app: ExampleApp, folder: Path) -> Path:
    """Path of the app's catalogue, written to `folder` with the pictures beside it. What differs from the shipped one:

    the story's stage learns by `hierarchical`, which shows nudges from the first visitor on (`centred`, which is
    shipped, begins with almost none, because each may cost something); and paths begin with the app's name, because
    the five apps share one address.
    """
    folder.mkdir(parents=True, exist_ok=True)
    catalogue: Any = tomlkit.parse(read_shipped(app.name))
    stage = catalogue["stages"][app.stage]
    policy = tomlkit.inline_table()
    policy.update({"name": "hierarchical", "prior_mean": stage["policy"]["prior_mean"]})
    stage["policy"] = policy
    stage["schema"] = stage.get("schema", 1) + 1
    pages = catalogue.get("pages", {})
    if "excluded" in pages:
        pages["excluded"] = [f"/{app.name}{path}" for path in pages["excluded"]]
    for declared in catalogue["stages"].values():
        for nudge in declared.get("nudges", {}).values():
            link = nudge.get("content", {}).get("link", "")
            if link.startswith("/"):
                nudge["content"]["link"] = f"/{app.name}{link}"
    _copy_images(folder / "images")
    path = folder / f"{app.name}.toml"
    path.write_text(tomlkit.dumps(catalogue), encoding="utf-8")
    return path


def _copy_images(folder: Path) -> None:
    """Copy the pictures that the shipped catalogues name."""
    shipped = importlib.resources.files("bandit.catalogue.apps").joinpath("images")
    with importlib.resources.as_file(shipped) as images:
        shutil.copytree(images, folder, dirs_exist_ok=True)
