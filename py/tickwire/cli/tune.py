"""`tickwire tune`: the scripts of scripts/tuning with the options that they have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["tune_app"]

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


def _run(script: str, *arguments: str | Path, state: Path | None = None) -> None:
    from tickwire import tune

    more = () if state is None else ("--state", state)
    raise typer.Exit(tune.run(script, [*arguments, *more]))


@tune_app.command()
def example() -> None:
    """Print a host.env to edit: the engine's cores, the interfaces, and what else may be said."""
    from tickwire import tune

    typer.echo(tune.example(), nl=False)


@tune_app.command()
def plan(env: Env = _ENV, state: State = None) -> None:
    """Show what apply would write, as shell commands, and what it would leave. Writes nothing, needs no root.
    Exit 0: shown. 2: refused."""
    _run("apply.sh", "--env", env, state=state)


@tune_app.command()
def apply(env: Env = _ENV, state: State = None) -> None:
    """Write the plan, as root: each old value to the journal first, then the new one, read back and
    checked. Exit 0: done. 1: something failed, and all of it is put back. 2: refused, nothing was changed.
    4: it failed and not everything could be put back (revert tries again)."""
    _run("apply.sh", "--env", env, "--apply", state=state)


@tune_app.command()
def revert(
    state: State = None,
    force: Annotated[
        bool, typer.Option("--force", help="Put back as well what somebody changed since.")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Leave what somebody changed since, and forget it.")
    ] = False,
) -> None:
    """Put back what apply changed, as root, from its journal. Exit 0: all is back. 2: refused. 3: all but
    what somebody changed since. 4: something could not be put back."""
    flags = [flag for flag, given in (("--force", force), ("--forget", forget)) if given]
    _run("revert.sh", *flags, state=state)


@tune_app.command("boot-line")
def boot_line(env: Env = _ENV) -> None:
    """Print isolcpus, nohz_full, rcu_nocbs and huge pages for the kernel's boot line, and how to install and
    remove them on this distribution. Edits nothing."""
    _run("boot-line.sh", "--env", env)


@tune_app.command()
def services(
    env: Env = _ENV,
    with_: Annotated[
        str, typer.Option("--with", metavar="systemd|tuned", help="Who applies the tuning at boot.")
    ] = "systemd",
    install: Annotated[bool, typer.Option("--install", help="Write the files, as root.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Delete what was installed, as root.")] = False,
    force: Annotated[bool, typer.Option("--force", help="With --remove: files edited since, too.")] = False,
) -> None:
    """Print a systemd slice and units, or a TuneD profile, made from host.env; install or remove them. Starts
    and enables nothing. Exit 0: done. 1: a file could not be written. 2: refused. 3: removed but for edited
    files."""
    given = (("--install", install), ("--remove", remove), ("--force", force))
    _run("services.sh", "--env", env, "--with", with_, *(flag for flag, on in given if on))
