"""Column names: the option `--map OURS=THEIRS`, for columns of a table that have other names than ours, the same for
every command.
"""

import click

OPTION = click.option(
    "--map", "renamed", multiple=True, metavar="OURS=THEIRS", help="Read our column from theirs, e.g. arm=nudge."
)


def pairs(given: tuple[str, ...]) -> dict[str, str]:
    """Renamed columns, {our column: the file's}, from the values of `--map`. Raises click.UsageError for a value that
    is not OURS=THEIRS, or a column that is named twice.
    """
    found: dict[str, str] = {}
    for text in given:
        ours, equals, theirs = (part.strip() for part in text.partition("="))
        if not (ours and equals and theirs):
            raise click.UsageError(f"--map {text!r}: say OURS=THEIRS, e.g. --map arm=nudge")
        if ours in found or theirs in found.values():
            raise click.UsageError(f"--map {text!r}: each column once")
        found[ours] = theirs
    return found
