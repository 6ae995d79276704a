"""A warm start: which captures each feed begins with.

tickwire run --warm RUN_DIR pipeline.toml      # what `--record RUN_DIR` left, or is still writing
tickwire run --warm FEED=FILE pipeline.toml    # a capture of any recorder; repeated, oldest first
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tickwire.config import Config
from tickwire.errors import ConfigError
from tickwire.run_folder import MANIFEST, TEXT, captures, read_manifest

__all__ = ["WarmInputs", "assign_warm"]

WarmInputs = Mapping[str, Sequence[str | os.PathLike[str]]] | Sequence[str | os.PathLike[str]]


def assign_warm(config: Config, inputs: WarmInputs) -> dict[str, list[str]]:
    """Captures by feed, in the order they are read.

    An item is a run folder, which has a capture of each of its feeds, or a file: of the only feed, or of the
    one that `feed=FILE` names. A mapping has items by feed. A feed without a capture starts cold, and so does
    one of multicast: what its books are the venue says when it begins.
    """
    names = config.feed_names
    cold = [name for name, feed in zip(names, config.feeds, strict=True) if feed.multicast is not None]
    if isinstance(inputs, str | os.PathLike):
        inputs = [inputs]
    if isinstance(inputs, Mapping):
        pairs: list[tuple[str | None, str]] = [
            (name, os.fspath(item)) for name, items in inputs.items() for item in items
        ]
    else:
        pairs = [_split(os.fspath(item), names) for item in inputs]
    assigned: dict[str, list[str]] = {}
    for name, item in pairs:
        path = Path(item)
        if name is not None and name not in names:
            raise ConfigError(f"--warm: no feed is named {name!r}; feeds: {', '.join(names)}")
        if name in cold or len(cold) == len(names):
            raise ConfigError(
                f"--warm: {name or names[0]}: expected a feed that can begin warm, and multicast cannot: it "
                f"begins with the session or a snapshot of the venue's; found {item!r}"
            )
        if path.is_dir():
            able = [name] if name is not None else [feed for feed in names if feed not in cold]
            for feed, files in _of_run(path, able).items():
                assigned.setdefault(feed, []).extend(files)
            continue
        if name is None:
            if len(names) > 1:
                raise ConfigError(
                    f"--warm: expected feed=FILE with a feed of {', '.join(names)}, or a run folder, "
                    f"found {os.fspath(item)!r}"
                )
            name = names[0]
        if not path.exists():
            raise ConfigError(f"--warm: {path}: no such file")
        if not path.is_file():
            raise ConfigError(f"--warm: {path}: expected a file or a run folder; a pipe cannot be followed")
        if path.stat().st_size == 0:
            raise ConfigError(f"--warm: {path}: expected a capture, found an empty file")
        assigned.setdefault(name, []).append(str(path))
    return assigned


def _split(item: str, names: Sequence[str]) -> tuple[str | None, str]:
    name, equals, path = item.partition("=")
    return (name, path) if equals and name in names else (None, item)


def _of_run(folder: Path, feeds: Sequence[str]) -> dict[str, list[str]]:
    """What a recorded run, ended or not, has of these feeds."""
    try:
        recorded = read_manifest(folder)["feeds"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"--warm: {folder}: expected a capture or a folder that --record made, found no {MANIFEST} "
            "of a run in it"
        ) from None
    found = {feed: captures(folder, feed, (TEXT,)) for feed in feeds}
    found = {feed: files for feed, files in found.items() if any(os.path.getsize(file) for file in files)}
    if not found:
        raise ConfigError(
            f"--warm: {folder}: expected a capture of {', '.join(feeds)}, "
            f"found a run of {', '.join(map(str, recorded))}"
            + ("" if set(recorded).isdisjoint(feeds) else " that has captured nothing yet")
        )
    return found
