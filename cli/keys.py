"""`journey-bandit keys`: make API keys."""

from pathlib import Path
from typing import cast

import click

from api.keys import EVERY, SCOPES, Scope, create


@click.group()
def keys() -> None:
    """Make API keys."""


@keys.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(EVERY), default=SCOPES, show_default=True)
@click.option("--file", type=click.Path(path_type=Path), default=Path("keys.toml"), show_default=True)
def new(name: str, scopes: tuple[str, ...], file: Path) -> None:
    """Make a key, keep its digest in the file, and print it once. Restart the service to use it."""
    secret = create(file, name, [cast(Scope, scope) for scope in scopes])
    click.echo(f"kept its digest in {file}; the key itself is shown only now:", err=True)
    click.echo(secret)
