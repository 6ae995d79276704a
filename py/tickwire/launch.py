"""From a configuration to what runs: the dictionary that the engine is built from, and the sinks.

Here is asked what a configuration cannot know of itself: which cores and programs this host has, which models
lie where it points, on which day a file begins, who we are to a server. The dictionary's keys are the TOML
keys, durations with `_ns`; the engine is left nothing to guess.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tickwire import core
from tickwire.config import Config, Feed, Model, Multicast
from tickwire.config.endpoints import endpoint
from tickwire.held import HeldModel, model_id
from tickwire.host.affinity import can_run_on
from tickwire.outputs import refuse_over
from tickwire.private import read_secret
from tickwire.sinks.base import Sink
from tickwire.toml.words import MISSING, Located
from tickwire.units import parse_duration
from tickwire.venues import VENUES, OrderVenue

__all__ = ["make_sinks", "resolve"]

_GLIMPSE_USERNAME, _GLIMPSE_PASSWORD = "TICKWIRE_GLIMPSE_USERNAME", "TICKWIRE_GLIMPSE_PASSWORD"


def resolve(
    config: Config,
    *,
    replay: bool = False,
    inputs: Mapping[str, Sequence[str | os.PathLike[str]]] | None = None,
    record_dir: str | os.PathLike[str] | None = None,
    warm: Mapping[str, Sequence[str]] | None = None,
    models: Mapping[str, HeldModel] | None = None,
) -> dict[str, Any]:
    """The dictionary that the engine is built from. `ConfigError` where the host, or a file, does not fit.

    `models`: their files, read already, by their labels; without it they are read where they lie.

    A replay reads `inputs` (files by feed name), a live run begins with `warm` (the same). Cores, memory
    and spinning are the live host's business: a replay takes what it gets, anywhere.
    """
    _check_outputs(config, {**(inputs or {}), **(warm or {})})
    if not replay:
        _check_host(config)
    feeds = []
    for i, (feed, name) in enumerate(zip(config.feeds, config.feed_names, strict=True)):
        streams, trade_streams = feed.streams_by_connection()
        files = [os.fspath(file) for file in (inputs or {}).get(name, ())]
        if replay and not files:
            raise config.error(f"feeds[{i}]", "expected an input file to replay", name)
        feeds.append(
            {
                "name": name,
                "venue": feed.venue,
                "url": feed.url,
                "subscribe": streams,
                "trades_url": feed.trades_url,
                "subscribe_trades": trade_streams,
                "inputs": files,
                "warm": list((warm or {}).get(name, ())),
                "instruments": [instrument.model_dump() for instrument in feed.instruments],
                "trades": feed.trades,
                "core": feed.core if feed.core is not None and not replay else -1,
                "snapshot_retries": feed.snapshot_retries,
                "snapshot_backoff_ns": parse_duration(feed.snapshot_backoff),
                "snapshot_limit": int(feed.snapshot_limit or 0),
                "max_levels": feed.max_levels,
                "max_frame_bytes": feed.max_frame_bytes,
                "buffer_events": feed.buffer_events,
                "ca_file": str(config.path_of(feed.ca_file)) if feed.ca_file else "",
                "reconnect_min_ns": parse_duration(feed.reconnect_min),
                "reconnect_max_ns": parse_duration(feed.reconnect_max),
                "max_connection_age_ns": parse_duration(feed.max_connection_age),
                "liveness_timeout_ns": parse_duration(feed.liveness_timeout),
                "stale_after_ns": parse_duration(feed.stale_after),
                "max_orders": feed.max_orders,
                "midnights": _midnights(config, i, feed, files, replay=replay),
                "multicast": _multicast(config, i, feed, replay=replay),
            }
        )
    return {
        "engine": {
            "layout": config.engine.layout,
            "idle": config.engine.idle if not replay else "backoff",
            "output_slots": config.engine.output_slots,
            "stat_path": str(config.path_of(config.engine.stat_path)) if config.engine.stat_path else "",
        },
        "memory": {
            "huge_pages": config.memory.huge_pages if not replay else "auto",
            "lock": config.memory.lock if not replay else "auto",
        },
        "record": {
            "fsync": config.record.fsync,
            "fsync_interval_ns": parse_duration(config.record.fsync_interval),
        },
        "replay": replay,
        "record_dir": os.fspath(record_dir) if record_dir is not None else "",
        "feeds": feeds,
        "features": {
            "trigger": config.trigger,
            "every_ns": config.every_ns,
            "clock": config.features.clock,
            "window_rows": config.features.window_rows,
            "max_event_rate": config.features.max_event_rate,
            "trade_gaps": config.features.trade_gaps,
            "beyond_depth": config.features.beyond_depth,
            "max_age_ns": 0 if replay else parse_duration(config.features.max_age),
            "nodes": list(config.plan.nodes),
            "outputs": list(config.plan.outputs),
        },
        "worker_program": str(core.worker_program())
        if config.all_models and config.engine.layout == "processes"
        else "",
        "models": [
            _model(config, where, model, (models or {}).get(model.label), replay=replay)
            for where, model in config.located_models()
        ],
    }


def make_sinks(config: Config) -> list[tuple[str, Sink, int]]:
    """Of each entry of `[[sinks]]`: name, sink, and how many signals may wait for it."""
    made = []
    for number, entry in enumerate(config.sinks):
        try:
            sink = entry.make(config.path_of)
        except Located as error:
            raise config.error(f"sinks[{number}].{error.key}", str(error), error.value) from None
        made.append((f"{entry.type}_{number}", sink, entry.waiting))
    return made


def _check_outputs(config: Config, captures: Mapping[str, Sequence[str | os.PathLike[str]]]) -> None:
    """No file that a run writes is one that it reads."""
    inputs = [*config.input_files(), *(("an input", file) for files in captures.values() for file in files)]
    outputs = [("engine.stat_path", config.engine.stat_path)]
    for i, sink in enumerate(config.sinks):
        outputs += [(f"sinks[{i}].{key}", path) for key, path in sink.files().items()]
    for key, path in outputs:
        if path:
            refuse_over(f"{config.where}: {key}" if config.where else key, config.path_of(path), inputs)


def _check_host(config: Config) -> None:
    """What only the machine that runs it live can answer."""
    usable = os.sched_getaffinity(0)
    for path, wanted in config.wanted_cores():
        if wanted not in usable and not can_run_on(wanted):
            listed = ", ".join(map(str, sorted(usable)))
            raise config.error(path, f"expected a core that this process may use ({listed})", wanted)
    for i, feed in enumerate(config.feeds):
        if feed.source == "file":
            expected = 'expected "websocket" for a live run; replay a file with --input'
            if feed.by_order:
                expected = 'expected "multicast", and that table, for a live run; replay a file with --input'
            raise config.error(f"feeds[{i}].source", expected, feed.source)


def _midnights(config: Config, index: int, feed: Feed, files: Sequence[str], *, replay: bool) -> list[int]:
    """When the day of each file began, 0 where that follows from the packets' stamps. Live the configured
    day's, or nothing."""
    venue, midnights = VENUES[feed.venue], list[int]()
    if not isinstance(venue, OrderVenue):
        return midnights
    for file in files if replay else [feed.date] if feed.date else []:
        day = venue.date_of(feed.date or Path(file).name)
        is_file = replay and os.path.isfile(file)
        if is_file and os.path.getsize(file) and not core.extension.is_pcap(file):
            # Before its name is asked for the day: it may be no day file at all.
            venue.check_file(file)
        elif day is None and is_file:
            midnights.append(0)
            continue
        if day is None:
            raise config.error(
                f"feeds[{index}].date",
                f'expected the day of {file}, like "2020-01-30": its name does not say it',
                feed.date,
            )
        midnights.append(venue.midnight_ns(day))
    return midnights


def _multicast(config: Config, index: int, feed: Feed, *, replay: bool) -> dict[str, Any] | None:
    multicast = feed.multicast
    if multicast is None:
        return None
    username = password = ""
    if multicast.glimpse and not replay and feed.source == "multicast":
        key = f"feeds[{index}].multicast.credentials"
        path = config.path_of(multicast.credentials) if multicast.credentials else None
        try:
            username, password = _read_credentials(path)
        except ValueError as error:
            found = multicast.credentials or MISSING
            raise config.error(key, str(error), found) from None
    return _multicast_table(multicast, username, password)


def _multicast_table(multicast: Multicast, username: str, password: str) -> dict[str, Any]:
    lines = []
    for line in multicast.lines:
        (address, port), (_, interface, source) = endpoint(line.address), multicast.whole(line)
        lines.append(
            {
                "address": str(address),
                "port": port,
                "interface": interface,
                "source_address": source,
            }
        )
    return {
        "lines": lines,
        "rerequest": multicast.rerequest,
        "glimpse": multicast.glimpse,
        "username": username,
        "password": password,
        "batch": multicast.batch,
        "max_datagram_bytes": multicast.max_datagram_bytes,
        "receive_buffer_bytes": multicast.receive_buffer_bytes,
        "busy_poll_us": multicast.busy_poll_us,
        "busy_poll_budget": multicast.busy_poll_budget,
        "prefer_busy_poll": multicast.prefer_busy_poll,
        "nic_stamps": multicast.nic_stamps,
        "reorder_window_ns": parse_duration(multicast.reorder_window),
        "window_datagrams": multicast.window_datagrams,
        "request_attempts": multicast.request_attempts,
        "request_timeout_ns": parse_duration(multicast.request_timeout),
        "request_interval_ns": parse_duration(multicast.request_interval),
        "request_messages": multicast.request_messages,
        "glimpse_session": multicast.glimpse_session,
        "glimpse_retry_ns": parse_duration(multicast.glimpse_retry),
        "glimpse_timeout_ns": parse_duration(multicast.glimpse_timeout),
    }


def _read_credentials(path: Path | None) -> tuple[str, str]:
    """User name and password for GLIMPSE, of a file or of the environment. `ValueError` says what is wrong,
    and nothing of what was found."""
    if path is None:
        found = [os.environ.get(name, "") for name in (_GLIMPSE_USERNAME, _GLIMPSE_PASSWORD)]
        where = [f" in {name}" for name in (_GLIMPSE_USERNAME, _GLIMPSE_PASSWORD)]
    else:
        lines = read_secret(path).decode("ascii", errors="replace").splitlines()
        found = [line.strip() for line in lines]
        if not any(found) or any(found[2:]):
            raise ValueError("expected a file of two lines, the user name and the password")
        found, where = [*found, ""][:2], [" on its first line", " on its second line"]
    for text, most, what, at in zip(found, (6, 10), ("user name", "password"), where, strict=True):
        if len(text) > most or not (text.isascii() and text.isprintable()):
            raise ValueError(f"expected a {what} of at most {most} printable characters{at}")
    return found[0], found[1]


def _model(
    config: Config, where: str, model: Model, held: HeldModel | None, *, replay: bool
) -> dict[str, Any]:
    if held is not None:
        members, number = held.members, held.number
    else:
        files, weights = config.model_files(model), model.member_weights()
        members = [(str(file), weight, -1) for file, weight in zip(files, weights, strict=True)]
        try:
            number = model_id(files, weights)
        except OSError as error:
            expected = f"expected a file that can be read ({error.strerror})"
            raise config.error(f"{where}.path", expected, error.filename) from None
    return {
        "name": model.label,
        "members": members,
        "id": number,
        "ort_library": str(core.onnxruntime_library()),
        "provider": model.provider,
        "cache_dir": str(config.path_of(model.cache_dir)) if model.cache_dir else "",
        "workers": model.worker_count,
        "cores": [] if replay else list(model.cores),
        # A replay's rows keep their order, and none can be late.
        "assign": model.assign if not replay else "instrument",
        "max_batch": model.max_batch,
        "max_age_ns": 0 if replay else config.max_age_ns(model),
        "queue_slots": model.queue_slots,
        "policy": model.policy,
        "queue_limit": model.queue_limit,
        "shadow": model.shadow and not replay,  # In a replay the router tells them apart.
        "start_timeout_ns": parse_duration(model.start_timeout),
    }
