"""`tickwire tune`: the scripts of scripts/tuning with the options that they have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from tickwire.cli.options import command, words

__all__ = ["run", "tune_app"]

tune_app = typer.Typer(
    help="Set this host up for the engine, and put it back exactly as it was. Start with: tickwire tune "
    "example > host.env; edit it; tickwire tune plan --env host.env. To make it last over reboots: tickwire "
    "tune boot-line and tickwire tune services.",
    no_args_is_help=True,
)

_ENV = Path("/etc/tickwire/host.env")
Env = Annotated[Path, typer.Option("--env", metavar="FILE", help="What the host is like: cores, interfaces.")]
State = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="Where the journal is; default /var/lib/tickwire/tuning."),
]


class _Script:
    """A command that is a script with the same options."""

    script: ClassVar[tuple[str, ...]]
    """Its file, and what it is always told."""


def run(arguments: _Script) -> int:
    from tickwire import tune

    script, *always = arguments.script
    return tune.run(script, [*always, *words(arguments)])


@tune_app.command()
def example() -> None:
    """Print a host.env to edit: the engine's cores, the interfaces, and what else may be said."""
    from tickwire import tune

    typer.echo(tune.example(), nl=False)


@command(tune_app, "tickwire.cli.tune:run")
@dataclass(frozen=True)
class Plan(_Script):
    """Show what apply would write, as shell commands, and what it would leave. Writes nothing, needs no root.
    Exit 0: shown. 2: refused."""

    script = ("apply.sh",)
    env: Env = _ENV
    state: State = None


@command(tune_app, "tickwire.cli.tune:run")
@dataclass(frozen=True)
class Apply(_Script):
    """Write the plan, as root: each old value to the journal first, then the new one, read back and
    checked. Exit 0: done. 1: something failed, and all of it is put back. 2: refused, nothing was changed.
    4: it failed and not everything could be put back (revert tries again)."""

    script = ("apply.sh", "--apply")
    env: Env = _ENV
    state: State = None


@command(tune_app, "tickwire.cli.tune:run")
@dataclass(frozen=True)
class Revert(_Script):
    """Put back what apply changed, as root, from its journal. Exit 0: all is back. 2: refused. 3: all but
    what somebody changed since. 4: something could not be put back."""

    script = ("revert.sh",)
    state: State = None
    force: Annotated[bool, typer.Option("--force", help="Put back as well what somebody changed since.")] = (
        False
    )
    forget: Annotated[
        bool, typer.Option("--forget", help="Leave what somebody changed since, and forget it.")
    ] = False


@command(tune_app, "tickwire.cli.tune:run", name="boot-line")
@dataclass(frozen=True)
class BootLine(_Script):
    """Print isolcpus, nohz_full, rcu_nocbs and huge pages for the kernel's boot line, and how to install and
    remove them on this distribution. Edits nothing."""

    script = ("boot-line.sh",)
    env: Env = _ENV


@command(tune_app, "tickwire.cli.tune:run")
@dataclass(frozen=True)
class Services(_Script):
    """Print a systemd slice and units, or a TuneD profile, made from host.env; install or remove them. Starts
    and enables nothing. Exit 0: done. 1: a file could not be written. 2: refused. 3: removed but for edited
    files."""

    script = ("services.sh",)
    env: Env = _ENV
    with_: Annotated[
        str, typer.Option("--with", metavar="systemd|tuned", help="Who applies the tuning at boot.")
    ] = "systemd"
    install: Annotated[bool, typer.Option("--install", help="Write the files, as root.")] = False
    remove: Annotated[bool, typer.Option("--remove", help="Delete what was installed, as root.")] = False
    force: Annotated[bool, typer.Option("--force", help="With --remove: files edited since, too.")] = False
