"""`journey-bandit`: commands are loaded when they are called, so that `serve` never imports MLflow."""

import importlib
import signal
import sys

import click

from bandit.errors import JourneyBanditError, RemoteError

_COMMANDS = {
    "backup": "cli.backup:backup",
    "catalogue": "cli.catalogue:catalogue",
    "demo": "cli.demo:demo",
    "evaluate": "cli.evaluate:evaluate",
    "keys": "cli.keys:keys",
    "monitor": "cli.monitor:monitor",
    "rebuild": "cli.audit:rebuild",
    "promote": "cli.promote:promote",
    "publish": "cli.publish:publish",
    "receipt": "cli.audit:receipt",
    "registry": "cli.registry:registry",
    "replay": "cli.replay:replay",
    "restore": "cli.backup:restore",
    "review": "cli.review:review",
    "rollback": "cli.promote:rollback",
    "serve": "cli.serve:serve",
    "shadow": "cli.promote:shadow",
    "simulate": "cli.simulate:simulate",
    "stories": "cli.stories:stories",
    "ui": "cli.ui:ui",
    "webhooks": "cli.webhooks:webhooks",
    "warm-start": "cli.warm:warm",
}


class Lazy(click.Group):
    """Imports a command's module when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All of them."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name."""
        if name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[name].split(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            return _unavailable(name, str(error.name))
        assert isinstance(command, click.Command)  # noqa: S101 - the table above is ours
        return command


def _unavailable(name: str, missing: str) -> click.Command:
    """Stands for a command of an extra that is not installed."""
    fix = f"{missing} is not installed: pip install -c constraints.txt '.[experiments]'"

    def refuse(**_: object) -> None:
        raise RemoteError(f"{name}: {fix}")

    rest = click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(name, {"ignore_unknown_options": True}, refuse, [rest], help=fix)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="journey-bandit")
def group() -> None:
    """Learn which nudge, if any, brings a user back: one contextual bandit for each stage of the journey."""


def _terminated(*_: object) -> None:
    sys.exit(143)


def main() -> None:
    """Run; our own errors are one readable message and exit status 1. SIGTERM ends a command like Ctrl-C does: what it
    started is stopped.
    """
    signal.signal(signal.SIGTERM, _terminated)
    try:
        group(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (JourneyBanditError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
