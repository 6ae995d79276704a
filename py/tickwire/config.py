"""Configuration: every key of `pipeline.toml`, its default, and why one would change it.

The models here own all defaults; the engine below gets a resolved dictionary with nothing left to
guess (`Config.resolve`). Whatever is wrong with a file is a `ConfigError` that names the file, the
key's path, the value found and what was expected:

    pipeline.toml: feeds[0].depth_intervall: unknown key, found '100ms'; nearest known key: depth_interval

Paths inside a file are relative to the file's own folder, so that a folder with a configuration, a
model and a capture can be moved as one.
"""

from __future__ import annotations

import codecs
import contextlib
import contextvars
import datetime
import hashlib
import ipaddress
import json
import math
import os
import re
import shutil
import sys
import sysconfig
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from tickwire import toml_text
from tickwire.errors import ConfigError
from tickwire.held import HeldModel, model_number
from tickwire.names import check_interface, check_name, check_symbol, nearest
from tickwire.outputs import refuse_over
from tickwire.private import read_secret
from tickwire.units import DURATION, parse_duration

if TYPE_CHECKING:
    from tickwire.features import Plan, Schema
    from tickwire.supervisor import WorkerPolicy

__all__ = [
    "Config",
    "Engine",
    "Features",
    "Feed",
    "Instrument",
    "JsonlSink",
    "Memory",
    "Model",
    "Multicast",
    "Record",
    "Sink",
    "WebSocketSink",
]


def _check_duration(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"expected {DURATION}")
    parse_duration(value)
    return value


Duration = Annotated[str, BeforeValidator(_check_duration)]
"""A length of time as text with its unit. A bare number is refused: nobody remembers which unit it was."""


class _Model(BaseModel):
    # Strict: TOML has types, so `levels = "5"` is a mistake to report and not a number to find.
    # A table that is handed over ready-made is looked at again: it may be a changed copy of another one.
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
        revalidate_instances="always",
    )

    def __init__(self, /, **data: Any) -> None:
        """`ConfigError` names the keys that do not fit."""
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise ConfigError("\n".join(_explain(error, data, type(self)))) from None

    # A table inside another one is not made by calling this: its errors are located by the outermost.
    setattr(__init__, "__pydantic_base_init__", True)  # noqa: B010

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some keys changed, checked as the original was; `ConfigError` where they do not fit."""
        if not update:
            return super().model_copy(deep=deep)
        return type(self)(**{**{name: getattr(self, name) for name in self.model_fields_set}, **update})


class Engine(_Model):
    """`[engine]`: how the stages are laid over threads."""

    layout: Literal["inline", "threads", "processes"] = "threads"
    """`threads`: ingestion never waits for a model. `inline`: one agent a feed does everything, for a model
    that is faster than a hop between two cores. `processes`: as `threads`, but each inference agent is a
    process of its own, watched and restarted, for a model that may crash, hang or leak."""

    idle: Literal["spin", "yield", "backoff"] = "backoff"
    """What a data-plane thread does with nothing to do. `backoff` works on a two-core laptop; `spin` for a
    machine whose cores are isolated for this and nothing else."""

    output_slots: Annotated[int, Field(ge=64, le=1 << 22)] = 8192
    """Rows that the ring to Python holds. More when a slow consumer of `features()` must be ridden out;
    a full ring drops the newest row and counts it."""

    stat_path: str = ""
    """Where the mapped statistics file lies. Empty: a private place of this user's in memory, which a later
    start clears where the engine was killed; a replay's has no name. A replay whose place a running engine
    uses takes memory as well."""

    strict: bool = False
    """Makes errors of what the start-up report warns of: a host that works against the latency asked for, by
    cores that are not isolated, interrupts on them, small pages. For production; a replay does not ask."""


class Memory(_Model):
    """`[memory]`: what the arena asks of the kernel."""

    huge_pages: Literal["auto", "require", "off"] = "auto"
    """`require` turns the fallback to normal pages into an error: a mis-set host cannot go unnoticed."""

    lock: Literal["auto", "require", "off"] = "auto"
    """`require` makes a failed memory lock (see `ulimit -l`) an error. `off` where memory is short."""


class Record(_Model):
    """`[record]`: how a recording, `tickwire run --record DIR`, is kept."""

    fsync: Literal["interval", "never"] = "interval"
    """`interval`: what is recorded is brought to the disk each `fsync_interval`, by a thread of its own, so
    that a power failure takes little more than that. `never`: when the kernel likes, mostly within half a
    minute. A process that is killed loses no more for it: at most a second either way."""

    fsync_interval: Duration = "1s"
    """For `interval`, up to a second: longer nothing lies in a buffer of ours."""

    @model_validator(mode="after")
    def _in_time(self) -> Record:
        if not 100_000_000 <= parse_duration(self.fsync_interval) <= 1_000_000_000:
            raise _at("fsync_interval", "expected 100ms to 1s", self.fsync_interval)
        return self


def _instrument(value: object) -> object:
    return {"symbol": value} if isinstance(value, str) else value


class _Instrument(_Model):
    symbol: Annotated[str, Field(min_length=1, max_length=32)]
    """The venue's own name, in upper case: `BTCUSDT`, `BTCUSD_PERP`, `BRK.A`."""

    price_decimals: Annotated[int, Field(ge=0, le=18)] = 8
    """Decimal digits that a price may have. More digits than this in a message are refused, never rounded;
    fewer leave more room above: a price times ten to this power must stay below 9.2e18."""

    qty_decimals: Annotated[int, Field(ge=0, le=18)] = 8
    """Decimal digits that a quantity may have; as `price_decimals`."""


Instrument = Annotated[_Instrument, BeforeValidator(_instrument)]

_Venue = Literal["binance_spot", "binance_usdm", "binance_coinm", "nasdaq_itch"]

# Venues that tell of every order, on multicast lines or in files of their own form. All that has to do with a
# connection or a REST snapshot says nothing about them.
_BY_ORDER = ("nasdaq_itch",)
_OF_BY_ORDER = ("date", "max_orders", "multicast")
_OF_ANY_VENUE = ("name", "venue", "source", "instruments", "core", *_OF_BY_ORDER)
# MoldUDP64 sends a heartbeat each second.
_LINE_LIVENESS = "5s"
# Each has two streams, of which a connection may carry so many.
_MOST_SUBSCRIBED = 512
# A locate has two bytes, and 0 is nobody's.
_MOST_LOCATES = 65535
_ITCH_DECIMALS = {"price_decimals": 4, "qty_decimals": 0}

# Production endpoints, the interval that is the fastest public one, and the deepest snapshot of each venue.
#
# USD-M has split its endpoint by kind of stream: /public has depth and bookTicker, /market has aggTrade.
# The raw trade stream is on neither list, but clients that tried all of them find it on /public, with the
# depth, and on /market nothing. So a feed with trades = "trade" needs one connection and one with "aggTrade"
# two.
_VENUES: dict[str, dict[str, Any]] = {
    "binance_spot": {
        "url": "wss://stream.binance.com:9443/ws",
        "rest_url": "https://api.binance.com/api/v3/depth",
        "depth_interval": "100ms",
        "plain_interval": "1000ms",
        "depth_intervals": ("100ms", "1000ms"),
        "snapshot_limit": 5000,
        "snapshot_limits": range(1, 5001),
    },
    "binance_usdm": {
        "url": "wss://fstream.binance.com/public/ws",
        "agg_trades_url": "wss://fstream.binance.com/market/ws",
        "rest_url": "https://fapi.binance.com/fapi/v1/depth",
        "depth_interval": "0ms",
        "plain_interval": "250ms",
        "depth_intervals": ("0ms", "100ms", "250ms", "500ms"),
        "snapshot_limit": 1000,
        "snapshot_limits": (5, 10, 20, 50, 100, 500, 1000),
    },
    "binance_coinm": {
        "url": "wss://dstream.binance.com/ws",
        "rest_url": "https://dapi.binance.com/dapi/v1/depth",
        "depth_interval": "0ms",
        "plain_interval": "250ms",
        "depth_intervals": ("0ms", "100ms", "250ms", "500ms"),
        "snapshot_limit": 1000,
        "snapshot_limits": (5, 10, 20, 50, 100, 500, 1000),
    },
}


def _check_date(value: object) -> object:
    if type(value) is datetime.date:
        return value.isoformat()  # TOML's own form of a day, without quotes.
    if value != "" and (not isinstance(value, str) or _date_of(value) is None or len(value) != 10):
        raise ValueError('expected a day like "2020-01-30"')
    return value


# A day in a file's name, the most telling form first: year first, then NASDAQ's own two.
_DATES = (
    (re.compile(r"(?<![0-9])(20[0-9]{2})-?([01][0-9])-?([0-3][0-9])(?![0-9])"), (1, 2, 3)),
    (re.compile(r"(?<![0-9])([01][0-9])([0-3][0-9])(20[0-9]{2})(?![0-9])"), (3, 1, 2)),
    (re.compile(r"(?<![0-9])([01][0-9])([0-3][0-9])([0-9]{2})(?![0-9])"), (3, 1, 2)),
)


def _date_of(text: str) -> datetime.date | None:
    """The day that a text names, as far as there is such a day."""
    for form, order in _DATES:
        for match in form.finditer(text):
            year, month, day = (int(match.group(i)) for i in order)
            with contextlib.suppress(ValueError):
                return datetime.date(year if year > 99 else 2000 + year, month, day)
    return None


def new_york_midnight_ns(day: datetime.date) -> int:
    """The day's first moment in New York, UTC nanoseconds."""
    noon = datetime.datetime(day.year, day.month, day.day, 12, tzinfo=datetime.UTC)
    return int(_core().new_york_midnight(int(noon.timestamp()) * 1_000_000_000))


_ENDPOINT_EXPECTED = 'expected address:port in numbers, like "233.54.12.111:26477" or "[ff02::1]:26477"'


def _endpoint(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """The address and the port that a text names; `ValueError` where it names none."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError(_ENDPOINT_EXPECTED) from None
    if bracketed != (address.version == 6) or "%" in host or not _is_port(port):
        raise ValueError(_ENDPOINT_EXPECTED)
    return address, int(port)


def _is_port(text: str) -> bool:
    return re.fullmatch("[0-9]{1,5}", text) is not None and 0 < int(text) < 1 << 16


def _check_endpoint(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(_ENDPOINT_EXPECTED)
    _endpoint(value)
    return value


def _check_rerequest(value: object) -> object:
    if value != "":
        _check_endpoint(value)
        if _endpoint(str(value))[0].is_multicast:
            raise ValueError("expected the address of one server, not of a multicast group")
    return value


def _check_server(value: object) -> object:
    if value == "":
        return value
    match = (
        re.fullmatch(r"(?:\[([^\[\]]*)\]|([^\s:@/\[\]]+)):([0-9]+)", value)
        if isinstance(value, str)
        else None
    )
    if match is None or not _is_port(match[3]) or (match[2] is None and not _is_ipv6(match[1])):
        expected = 'expected host:port, like "glimpse.example:18000"'
        if isinstance(value, str) and "@" in value:
            # Whoever writes a password there must not read it in a log.
            raise _at("", f"{expected}; who we are is in the file that credentials names", _MISSING)
        raise ValueError(expected)
    return value


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


def _check_ip(value: object) -> object:
    if value != "":
        try:
            ipaddress.ip_address(value if isinstance(value, str) and "%" not in value else "")
        except ValueError:
            raise ValueError("expected an IPv4 or IPv6 address in numbers") from None
    return value


def _checked(check: Callable[[str], str | None]) -> AfterValidator:
    """A check of tickwire.names, as pydantic wants it."""

    def of(value: str) -> str:
        expected = check(value)
        if expected is not None:
            raise ValueError(expected)
        return value

    return AfterValidator(of)


_Interface = Annotated[str, Field(max_length=15), _checked(check_interface)]
_Name = Annotated[str, Field(max_length=40), _checked(check_name)]
_SourceAddress = Annotated[str, BeforeValidator(_check_ip)]


class _MulticastLine(_Model):
    address: Annotated[str, BeforeValidator(_check_endpoint)]
    """The group and its port, in numbers: `"233.54.12.111:26477"`. Or an address of this host, where
    something else brings the line there."""

    interface: _Interface = ""
    """Network interface that the line comes in on. Empty: the table's own."""

    source_address: _SourceAddress = ""
    """Join for this sender alone (source-specific multicast), the first defence against anybody else on the
    network. Empty: the table's own."""

    @model_validator(mode="after")
    def _fits(self) -> _MulticastLine:
        for key in ("interface", "source_address"):
            if getattr(self, key) and not self.is_group:
                raise _at(key, f"expected none for {self.address}, which is no group", getattr(self, key))
        if self.source_address and not self.goes_with(self.source_address):
            raise _at("source_address", "expected the group's kind of address", self.source_address)
        return self

    @property
    def is_group(self) -> bool:
        return _endpoint(self.address)[0].is_multicast

    def goes_with(self, source_address: str) -> bool:
        return ipaddress.ip_address(source_address).version == _endpoint(self.address)[0].version


def _line_table(value: object) -> object:
    if isinstance(value, str):
        _check_endpoint(value)
        return {"address": value}
    return value


# What says nothing without a server to ask.
_OF_REREQUEST = ("request_attempts", "request_timeout", "request_interval", "request_messages")
_OF_GLIMPSE = ("credentials", "glimpse_session", "glimpse_retry", "glimpse_timeout")
_GLIMPSE_USERNAME, _GLIMPSE_PASSWORD = "TICKWIRE_GLIMPSE_USERNAME", "TICKWIRE_GLIMPSE_PASSWORD"
_MOST_NS = 3_600_000_000_000


class Multicast(_Model):
    """`[feeds.multicast]`: where a venue's MoldUDP64 lines are, and what brings back what they lose."""

    lines: Annotated[
        list[Annotated[_MulticastLine, BeforeValidator(_line_table)]], Field(min_length=1, max_length=8)
    ]
    """The lines that carry the stream, usually A and B: `"233.54.12.111:26477"`, or tables
    `{address = "…", interface = "…", source_address = "…"}`. The first copy of a message wins."""

    interface: _Interface = ""
    """Network interface of the lines that name none. Empty: by the host's routes, which on a host with
    several cards are rarely the ones meant."""

    source_address: _SourceAddress = ""
    """Sender of the lines that name none, to join for it alone (source-specific multicast): what anybody else
    on the network sends to the group never arrives, which is the first defence against stray datagrams. A
    replay of a capture takes that sender's datagrams alone, too. Empty: any."""

    rerequest: Annotated[str, BeforeValidator(_check_rerequest)] = ""
    """The re-request server, `"10.1.2.3:17777"`: it sends again what no line brought. Empty: there is none,
    and a gap goes to GLIMPSE at once."""

    glimpse: Annotated[str, BeforeValidator(_check_server)] = ""
    """The snapshot server, `"glimpse.example:18000"`: what its books are when the stream cannot be had whole,
    and where to begin in the middle of a session. Empty: there is none, and books stay suspect after a gap
    that nothing filled, until the next session."""

    credentials: str = ""
    """File with the user name for GLIMPSE on its first line and the password on its second. Empty: the
    environment's TICKWIRE_GLIMPSE_USERNAME and TICKWIRE_GLIMPSE_PASSWORD, else blank. Never quoted in an
    error, a log or a recording."""

    receive_buffer_bytes: Annotated[int, Field(ge=0, le=1 << 30)] = 64 << 20
    """Receive buffer of each line's socket, for what comes while the agent is busy. The kernel gives no more
    than net.core.rmem_max to whom may not override it, and the start-up report says what it gave. 0: its
    default."""

    batch: Annotated[int, Field(ge=1, le=1024)] = 32
    """Datagrams that one receive takes at most. Fewer look at the other line sooner in a burst."""

    max_datagram_bytes: Annotated[int, Field(ge=64, le=65487)] = 2048
    """Longer datagrams are cut by the kernel, counted and not used. More for a venue of jumbo frames, up to
    what an IPv6 packet of a capture has room for."""

    busy_poll_us: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """How long the kernel itself looks at the card's queue in a receive (SO_BUSY_POLL). 0: not asked for."""

    busy_poll_budget: Annotated[int, Field(ge=0, le=65535)] = 0
    """Datagrams of one such look (SO_BUSY_POLL_BUDGET). 0: the kernel's default."""

    prefer_busy_poll: bool = False
    """Leave the card's interrupts off while we keep looking (SO_PREFER_BUSY_POLL). Needs CAP_NET_ADMIN."""

    nic_stamps: bool = False
    """Take the card's receive stamps where it gives some. Only where its clock is kept on UTC."""

    reorder_window: Duration = "2ms"
    """How long a gap waits for the other line before it is asked for: the skew between the lines, and no
    more, since what is behind the gap waits as long."""

    window_datagrams: Annotated[int, Field(ge=1, le=1 << 20)] = 4096
    """Datagrams kept behind a gap while it is filled or a snapshot is taken. A full window gives the gap up,
    or drops the oldest, counted. Each takes `max_datagram_bytes`."""

    request_attempts: Annotated[int, Field(ge=1, le=1000)] = 4
    """Requests without an answer until a gap is given up, and GLIMPSE asked."""

    request_timeout: Duration = "50ms"
    """Wait for an answer to a request."""

    request_interval: Duration = "0s"
    """Pause between two requests, for a venue that limits them."""

    request_messages: Annotated[int, Field(ge=1, le=65534)] = 1000
    """Most messages that one request asks for, as the venue allows."""

    glimpse_session: Literal["same", "any"] = "same"
    """`same`: a snapshot is refused whose session is named otherwise than the stream's, for it is of another
    numbering, as of the day before. `any` for a venue that names the two otherwise."""

    glimpse_retry: Duration = "1s"
    """Wait after a snapshot that failed."""

    glimpse_timeout: Duration = "10s"
    """For the login to GLIMPSE, and of its silence until the connection counts as dead."""

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, data: Any) -> Any:
        for key in ("username", "password"):
            if isinstance(data, Mapping) and key in data:
                expected = "expected none here, but in the file that credentials names or in the environment"
                raise _at(key, expected, _MISSING)
        return data

    @model_validator(mode="after")
    def _fits(self) -> Multicast:
        first: dict[tuple[str, str, str], int] = {}
        for i, line in enumerate(self.lines):
            if self.source_address and line.is_group and not line.goes_with(self.source_address):
                expected = f"expected the kind of address of lines[{i}], or one in each line's own table"
                raise _at("source_address", expected, self.source_address)
            if first.setdefault(self._whole(line), i) != i:
                expected = f"expected each line once, but lines[{first[self._whole(line)]}] is the same"
                raise _at(f"lines[{i}]", expected, line.address)
        for server, keys in (("rerequest", _OF_REREQUEST), ("glimpse", _OF_GLIMPSE)):
            for key in keys:
                # A default may be written down, as the effective configuration does.
                if not getattr(self, server) and getattr(self, key) != Multicast.model_fields[key].default:
                    raise _at(key, f"expected none without {server}", getattr(self, key))
        for key, zero in (
            ("reorder_window", True),
            ("request_timeout", False),
            ("request_interval", True),
            ("glimpse_retry", False),
            ("glimpse_timeout", False),
        ):
            if not (0 if zero else 1) <= parse_duration(getattr(self, key)) <= _MOST_NS:
                expected = "expected at most an hour" if zero else "expected more than zero, an hour at most"
                raise _at(key, expected, getattr(self, key))
        return self

    def joined(self) -> dict[int, tuple[str, str, str]]:
        """Address with its port, interface and sender of the lines that are groups, by their number."""
        return {i: self._whole(line) for i, line in enumerate(self.lines) if line.is_group}

    def _whole(self, line: _MulticastLine) -> tuple[str, str, str]:
        """Address, interface and sender of a line, the table's own where it names none."""
        if not line.is_group:
            return line.address, "", ""
        return line.address, line.interface or self.interface, line.source_address or self.source_address

    def resolve(self, username: str, password: str) -> dict[str, Any]:
        """What the engine gets."""
        lines = []
        for line in self.lines:
            (address, port), (_, interface, source) = _endpoint(line.address), self._whole(line)
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
            "rerequest": self.rerequest,
            "glimpse": self.glimpse,
            "username": username,
            "password": password,
            "batch": self.batch,
            "max_datagram_bytes": self.max_datagram_bytes,
            "socket_receive_bytes": self.receive_buffer_bytes,
            "busy_poll_us": self.busy_poll_us,
            "busy_poll_budget": self.busy_poll_budget,
            "prefer_busy_poll": self.prefer_busy_poll,
            "nic_stamps": self.nic_stamps,
            "reorder_ns": parse_duration(self.reorder_window),
            "window_packets": self.window_datagrams,
            "request_attempts": self.request_attempts,
            "request_timeout_ns": parse_duration(self.request_timeout),
            "request_interval_ns": parse_duration(self.request_interval),
            "request_messages": self.request_messages,
            "any_glimpse_session": self.glimpse_session == "any",
            "snapshot_retry_ns": parse_duration(self.glimpse_retry),
            "glimpse_timeout_ns": parse_duration(self.glimpse_timeout),
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


def websocket_token(path: Path | None) -> str:
    """What clients of a sink must know; empty for nothing. `ValueError` says what is wrong with it, and
    nothing of what was found."""
    if path is None:
        found, where = os.environ.get("TICKWIRE_WEBSOCKET_TOKEN", ""), " in TICKWIRE_WEBSOCKET_TOKEN"
        if not found:
            return ""
    else:
        found, where = read_secret(path).decode("ascii", errors="replace").strip(), ""
    if not 16 <= len(found) <= 512 or not found.isascii() or not found.isprintable() or " " in found:
        raise ValueError(f"expected one line of 16 to 512 printable characters without a space{where}")
    return found


def _one_trade_stream(value: object) -> object:
    if isinstance(value, list):
        raise ValueError(
            'expected one of "trade", "aggTrade": both are the same trades, and two trade streams of one '
            "instrument would count each of them twice"
        )
    return value


class Feed(_Model):
    """`[[feeds]]`: one venue, or a part of its instruments, with its own ingest agent."""

    name: _Name = ""
    """What counters, captures and `--input NAME=FILE` call it. Empty: the venue's name, made unique."""

    venue: _Venue
    """Which venue's messages and sequence rules these are."""

    source: Literal["websocket", "multicast", "file"] = "websocket"
    """`file` for a configuration that is only ever replayed; a replay reads files whatever stands here. Need
    not be told of `nasdaq_itch`: it is `multicast` with that table, else `file`."""

    url: str = ""
    """WebSocket endpoint. Empty: the venue's production endpoint. Set it for a test network, a proxy near
    you, or the simulator."""

    trades_url: str = ""
    """A connection of their own for the trades, where the venue has them at another endpoint. Empty: they
    come with the book changes, but for the venue's production endpoint where it is split. While the trades'
    connection is down no book of the feed is valid: features of trades would be short with no sign of it."""

    rest_url: str = ""
    """Full URL of the depth endpoint, for snapshots. Empty: the venue's production endpoint."""

    instruments: Annotated[list[Instrument], Field(min_length=1, max_length=_MOST_LOCATES)]
    """Symbols, or tables `{symbol = "…", price_decimals = …, qty_decimals = …}`. At most 512 of one feed over
    WebSocket; of `nasdaq_itch` as many as the venue has."""

    trades: Annotated[Literal["trade", "aggTrade"], BeforeValidator(_one_trade_stream)] = "trade"
    """Which of the venue's two trade streams to read. Not both: they tell of the same trades."""

    quotes: bool = False
    """Also subscribe to the best-quote stream, for a recording; it never changes the by-price book."""

    depth_interval: str = ""
    """How often the venue sends book changes. Empty: its fastest. Slower where bandwidth is short."""

    core: Annotated[int, Field(ge=0, le=4095)] | None = None
    """Core to pin the ingest agent to. None: floating. A core that cannot be had is an error, because a run
    that floats in silence gives numbers nobody can explain."""

    snapshot_limit: Annotated[int, Field(ge=1, le=20000)] | None = None
    """Levels a side to ask of a snapshot. None: as many as the venue gives. Fewer cost less weight."""

    snapshot_retries: Annotated[int, Field(ge=0, le=1000)] = 8
    """Snapshots to try in a row with growing pauses. After so many it is tried once a minute, until one
    fits or the next re-connect. One that the venue refuses with a `Retry-After` is no try."""

    snapshot_backoff: Duration = "500ms"
    """Wait before the second try; doubles, with jitter, up to a minute. More than zero."""

    max_levels: Annotated[int, Field(ge=8, le=1 << 20)] = 16384
    """Levels a side that a book holds; the deepest are dropped, and counted, beyond it. Fewer save memory."""

    max_frame_bytes: Annotated[int, Field(ge=1 << 10, le=1 << 30)] = 16 << 20
    """A larger WebSocket message is refused and the connection opened anew."""

    buffer_events: Annotated[int, Field(ge=16, le=1 << 20)] = 4096
    """Book changes kept while a snapshot is awaited. More where snapshots are slow and changes frequent."""

    ca_file: str = ""
    """Certificate authorities to trust, a PEM file. Empty: the system's. Certificates are always verified."""

    reconnect_min: Duration = "250ms"
    """Wait before the first re-connect; doubles, with jitter, up to `reconnect_max`."""

    reconnect_max: Duration = "30s"
    """Longest wait between two attempts to connect, unless the venue's refusal says how long to wait
    (`Retry-After` in seconds or as a date, believed up to an hour)."""

    max_connection_age: Duration = "23h50m"
    """Before a connection gets older, another one is opened, and takes over once it has reached the old one's
    place in the stream: no gap, no new epoch. Venues close connections after 24 hours. `"0s"`: wait for that;
    a venue that announces its shutdown is met in the same way whatever stands here."""

    liveness_timeout: Duration = "60s"
    """A connection that brings no byte for so long, not even a pong to our pings, is given up and opened
    anew. `"0s"`: never. A quiet instrument is no reason: this is about the connection. Of multicast it is a
    line that brings no datagram, not even a heartbeat, which comes each second: it is reported as silent, and
    while all are, no book of the feed is valid. 5 s there, if nothing stands here."""

    multicast: Multicast | None = None
    """`nasdaq_itch`: where it comes in live. None: it is only replayed, from files."""

    date: Annotated[str, BeforeValidator(_check_date)] = ""
    """`nasdaq_itch`: the day, `"2020-01-30"`, since the venue's times count from its midnight in New York.
    Empty: live and in a packet capture the day of the receive time; of a day file as its name says, in one of
    the forms `01302020.NASDAQ_ITCH50`, `S013020-v50`, `20200130` and `2020-01-30`."""

    max_orders: Annotated[int, Field(ge=16, le=1 << 30)] = 1 << 20
    """`nasdaq_itch`: live orders of this feed's instruments that there is memory for, some 53 bytes each. A
    book whose order finds none is suspect from then on, and the report says so. A whole exchange has two or
    three millions."""

    stale_after: Duration = "0s"
    """A book that no change came for in so long is taken for stale: no rows until the next change, which
    begins a new epoch. `"0s"`: never, since a quiet instrument is normal. Set it where silence means a fault
    of the venue's that `liveness_timeout` cannot see, as when other instruments go on."""

    @model_validator(mode="before")
    @classmethod
    def _venue_defaults(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("venue") in _BY_ORDER:
            return cls._by_order_defaults(data)
        if not isinstance(data, Mapping) or data.get("venue") not in list(_VENUES):  # It may be any type.
            return data  # The venue's own error says it better.
        filled = dict(data)
        venue = _VENUES[str(data["venue"])]
        if not filled.get("url") and not filled.get("trades_url") and filled.get("trades") == "aggTrade":
            filled["trades_url"] = venue.get("agg_trades_url", "")
        for key in ("url", "rest_url", "depth_interval", "snapshot_limit"):
            if filled.get(key) in (None, ""):
                filled[key] = venue[key]
        return filled

    @staticmethod
    def _by_order_defaults(data: Mapping[str, Any]) -> dict[str, Any]:
        live = data.get("multicast") is not None
        filled = {"source": "multicast" if live else "file", **data}
        if live:
            filled.setdefault("liveness_timeout", _LINE_LIVENESS)
        if isinstance(filled.get("instruments"), list):
            filled["instruments"] = [
                {**_ITCH_DECIMALS, **item} if isinstance(item := _instrument(given), Mapping) else item
                for given in filled["instruments"]
            ]
        return filled

    def _fits_by_order(self) -> Feed:
        for i, instrument in enumerate(self.instruments):
            for key, decimals in _ITCH_DECIMALS.items():
                if getattr(instrument, key) != decimals:
                    expected = f"expected none, or the venue's {decimals}"
                    raise _at(f"instruments[{i}].{key}", expected, getattr(instrument, key))
        if self.source == "multicast" and self.multicast is None:
            raise _at("multicast", 'required with source = "multicast"', _MISSING)
        if self.source == "websocket":
            raise _at("source", f'expected "multicast" or "file" for {self.venue}', self.source)
        of_this = (*_OF_ANY_VENUE, "liveness_timeout") if self.multicast is not None else _OF_ANY_VENUE
        for key, field in Feed.model_fields.items():
            # A default may be written down, as the effective configuration does.
            if key not in of_this and getattr(self, key) != field.default:
                raise _at(key, f"expected none for {self.venue}", getattr(self, key))
        return self

    @property
    def by_order(self) -> bool:
        """Does the venue tell of every order?"""
        return self.venue in _BY_ORDER

    @model_validator(mode="after")
    def _fits_venue(self) -> Feed:
        for i, instrument in enumerate(self.instruments):
            expected = check_symbol(self.venue, instrument.symbol)
            if expected is not None:
                raise _at(f"instruments[{i}]", expected, instrument.symbol)
        if self.by_order:
            return self._fits_by_order()
        for key in _OF_BY_ORDER:
            if getattr(self, key) != Feed.model_fields[key].default:
                found = getattr(self, key) if key != "multicast" else _MISSING
                raise _at(key, f"expected none for {self.venue}", found)
        if self.source == "multicast":
            raise _at("source", f'expected "websocket" or "file" for {self.venue}', self.source)
        if len(self.instruments) > _MOST_SUBSCRIBED:
            expected = f"expected at most {_MOST_SUBSCRIBED} entries for {self.venue}"
            raise _at("instruments", expected, len(self.instruments))
        venue = _VENUES[self.venue]
        if self.depth_interval not in venue["depth_intervals"]:
            expected = ", ".join(f'"{interval}"' for interval in venue["depth_intervals"])
            raise _at("depth_interval", f"expected one of {expected} for {self.venue}", self.depth_interval)
        if self.snapshot_limit not in venue["snapshot_limits"]:
            limits = venue["snapshot_limits"]
            expected = (
                f"1 to {limits[-1]}" if isinstance(limits, range) else f"one of {', '.join(map(str, limits))}"
            )
            raise _at("snapshot_limit", f"expected {expected} for {self.venue}", self.snapshot_limit)
        if self.max_levels < int(self.snapshot_limit or 0):
            raise _at(
                "max_levels", f"expected at least snapshot_limit = {self.snapshot_limit}", self.max_levels
            )
        ws, http = ("ws://", "wss://"), ("http://", "https://")
        for key, schemes in (("url", ws), ("trades_url", ws), ("rest_url", http)):
            value = str(getattr(self, key))
            if key == "trades_url" and not value:
                continue
            if not value.startswith(schemes):
                raise _at(key, f"expected a URL that begins with {' or '.join(schemes)}", value)
            try:
                parts = urlsplit(value)
                whole = bool(parts.hostname) and parts.port != 0
            except ValueError:
                whole = False
            if not whole:
                raise _at(key, "expected a URL with a host, and a port that there is", value)
            if "@" in parts.netloc:
                # It would stand in recordings, reports and logs; and so it is not shown here either.
                raise _at(key, "expected a URL without a user name and a password", _MISSING)
        if parse_duration(self.reconnect_min) > parse_duration(self.reconnect_max):
            raise _at(
                "reconnect_min",
                f"expected at most reconnect_max = {self.reconnect_max!r}",
                self.reconnect_min,
            )
        if parse_duration(self.reconnect_min) == 0:
            raise _at(
                "reconnect_min", "expected more than zero: a venue bans who reconnects without pause", "0"
            )
        if parse_duration(self.snapshot_backoff) == 0:
            raise _at(
                "snapshot_backoff",
                "expected more than zero: a venue bans who asks without pause",
                self.snapshot_backoff,
            )
        return self

    def streams(self) -> list[str]:
        """Names of the streams to subscribe to, in the configuration's order."""
        if self.by_order:
            return []
        plain = _VENUES[self.venue]["plain_interval"]
        depth = "depth" if self.depth_interval == plain else f"depth@{self.depth_interval}"
        kinds = [depth, self.trades, *(["bookTicker"] if self.quotes else [])]
        return [f"{instrument.symbol.lower()}@{kind}" for instrument in self.instruments for kind in kinds]

    def streams_by_connection(self) -> tuple[list[str], list[str]]:
        """The streams of `url` and those of `trades_url`; none of these where it is empty."""
        streams = self.streams()
        if not self.trades_url:
            return streams, []
        trades = [stream for stream in streams if stream.endswith(f"@{self.trades}")]
        return [stream for stream in streams if stream not in trades], trades


def _no_period(value: object) -> object:
    if value == "every" or (isinstance(value, Mapping) and "every" in value):
        raise ValueError(
            'expected one of "book", "top", "trade"; for a row a period set features.every = "100ms" instead'
        )
    return value


class Features(_Model):
    """`[features]`: what a row holds and when one leaves."""

    trigger: Annotated[Literal["book", "top", "trade"], BeforeValidator(_no_period)] | None = None
    """Which events emit a row: each that changed the book (the default), each that changed the best price or
    quantity, or each trade."""

    every: Duration | None = None
    """Instead of `trigger`: a row at the first event at or past each multiple of this."""

    beyond_depth: Literal["suspect", "accept"] = "suspect"
    """A snapshot says nothing of levels behind its last one. Where the market moves so far that a row would
    look at them, its book is suspect until more is known; or the rows are taken as they are, and counted."""

    rows: Annotated[list[str], Field(min_length=1, max_length=4096)]
    """The features, one expression a column: `"imbalance(levels=5)"`."""

    clock: Literal["recv", "event"] = "recv"
    """What a time window is measured on: our receive time, or the venue's stamp (its running maximum)."""

    window_rows: Annotated[int, Field(ge=1, le=1 << 16)] = 1
    """Rows a sequence model sees at once: T of its `[1, T, F]` input. 1 for a model of one row."""

    max_event_rate: Annotated[int, Field(ge=1, le=10_000_000)] = 2000
    """Events a second and instrument that time windows are sized for. What is above it is counted and leaves
    its window early; raise it for the busiest instruments, lower it to save memory."""

    trade_gaps: Literal["count", "suspect"] = "count"
    """What a hole in the venue's trade ids does where a row needs trades: each row says how many trades of
    its epoch are missing (`missing_trades`), or none leaves while a late trade may fill the hole, and a
    second behind it the epoch ends, and the book's next change begins another."""

    max_age: Duration = "1s"
    """A row, or its signal, that is older than this when it leaves, counted from its message's arrival, is
    counted and leaves as stale, without a score. "0s": no limit. Live alone: a recording has the row as it
    was, a replay applies no limit, and `verify` judges again by the recorded stamps."""

    @model_validator(mode="after")
    def _one_trigger(self) -> Features:
        if self.trigger is not None and self.every is not None:
            raise _at(
                "every",
                f"expected exactly one of trigger and every, found trigger = {self.trigger!r} too",
                self.every,
            )
        if self.every is not None and parse_duration(self.every) == 0:
            raise _at("every", "expected more than zero", self.every)
        return self


_Path = Annotated[str, Field(min_length=1)]


# Keys of a model that say how its processes are kept.
_OF_PROCESSES = (
    "restart_backoff",
    "max_restarts",
    "restart_window",
    "heartbeat_timeout",
    "max_rss_mb",
)


class Model(_Model):
    """`[model]`, or `[[models]]` for several: what scores the rows. Leave it out to get rows alone."""

    name: _Name = ""
    """What signals, counters and `tickwire model swap` call it. Empty: the file's name without its ending."""

    path: _Path | Annotated[list[_Path], Field(min_length=1, max_length=16)]
    """The ONNX file, bound to these features by `tickwire model bind`. Several files are an ensemble: each
    scores the row, and the signal has their mean, or what `weights` makes of them."""

    weights: Annotated[list[float], Field(max_length=16)] = []
    """Of the files of an ensemble, in their order; only their ratios count. Empty: all weigh the same."""

    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    """What ONNX Runtime runs it on. One that the installed ONNX Runtime does not have is an error."""

    cache_dir: str = ""
    """Where TensorRT keeps what it has built for this model and device. Empty: it builds at each start."""

    workers: Annotated[int, Field(ge=1, le=64)] | None = None
    """Inference agents, each with its own session. None: one for each of `cores`, else one."""

    cores: Annotated[list[Annotated[int, Field(ge=0, le=4095)]], Field(max_length=64)] = []
    """Cores to pin the inference agents to, one each. Empty: they float."""

    assign: Literal["instrument", "least_loaded"] = "instrument"
    """Which worker scores a row: always the same one for an instrument, so that its signals keep their order;
    or the one with the fewest rows waiting, for a model that is slower than its busiest instrument. Its
    signals may then pass each other, but none comes after the notice that ended its epoch."""

    max_batch: Annotated[int, Field(ge=1, le=64)] = 1
    """Rows that wait already and are scored in one run, at most; a run never waits for more. For a model that
    is late in bursts. Needs a model whose first dimension is free."""

    max_age_us: Annotated[int, Field(ge=0, le=60_000_000)] | None = None
    """`features.max_age` for this model's signals alone, in microseconds. None: that one; 0: no limit."""

    queue_slots: Annotated[int, Field(ge=16, le=1 << 20)] = 1024
    """Rows that wait for an inference agent. A full queue drops the newest row and counts it."""

    policy: Literal["every", "drop_oldest", "conflate"] = "every"
    """What a late model does with the rows that wait: score all, give up the oldest beyond `queue_limit`, or
    score only the newest of each instrument."""

    queue_limit: Annotated[int, Field(ge=1, le=1 << 20)] = 256
    """For `drop_oldest`: rows that may wait."""

    shadow: bool = False
    """Score and record, but send nothing to the sinks: to try a model beside the one that counts."""

    watch: bool = False
    """Look at the file once a second, and go over to it when it changes, as `tickwire model swap` does. Put
    the new one in its place by a rename: a file that is still being written is refused."""

    restart_backoff: Duration = "100ms"
    """Layout `processes`: the pause before a worker is started again that failed soon after its start, within
    ten times this; twice as long each further time, up to ten seconds. One that had worked for longer is
    started again at once."""

    max_restarts: Annotated[int, Field(ge=0, le=1_000_000)] = 5
    """Layout `processes`: a worker that dies, hangs or grows too large more often than this within
    `restart_window` is given up: its rows leave unscored, and say so."""

    restart_window: Duration = "1m"
    """Layout `processes`: for `max_restarts`."""

    heartbeat_timeout: Duration = "2s"
    """Layout `processes`: a worker that gives no sign of life for so long hangs, and is killed. More than the
    longest run of the model."""

    start_timeout: Duration = "1m"
    """A model that is not read, or not loaded and warm, by then is refused, at a start and at an exchange: it
    is tried in a process of its own. Layout `processes`: a worker that needs longer has failed."""

    max_rss_mb: Annotated[int, Field(ge=0, le=1 << 24)] = 0
    """Layout `processes`: a worker that holds more memory of its own than this is replaced by a fresh one, in
    good order. 0: no limit."""

    @model_validator(mode="after")
    def _fits(self) -> Model:
        if self.policy == "drop_oldest" and self.queue_limit > self.queue_slots:
            raise _at("queue_limit", f"expected at most queue_slots = {self.queue_slots}", self.queue_limit)
        if self.weights and len(self.weights) != len(self.paths):
            raise _at("weights", f"expected one for each of the {len(self.paths)} files", self.weights)
        if self.weights and len(self.paths) == 1:
            raise _at("weights", "expected none for a single file", self.weights)
        if not all(0 < weight < math.inf for weight in self.weights):
            raise _at("weights", "expected numbers above zero", self.weights)
        if parse_duration(self.heartbeat_timeout) < 500_000_000:
            raise _at("heartbeat_timeout", "expected at least 500ms, five heartbeats", self.heartbeat_timeout)
        if parse_duration(self.start_timeout) == 0:
            raise _at("start_timeout", "expected more than zero", self.start_timeout)
        if self.cores and self.workers not in (None, len(self.cores)):
            raise _at("workers", f"expected one for each of the {len(self.cores)} cores", self.workers)
        if self.cache_dir and self.provider != "tensorrt":
            raise _at("cache_dir", 'expected none without provider = "tensorrt"', self.cache_dir)
        if self.assign == "least_loaded" and self.worker_count == 1:
            raise _at("assign", 'expected "instrument" with a single worker', self.assign)
        return self

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path

    @property
    def label(self) -> str:
        """The name, or the one made from the file's."""
        return self.name or "+".join(Path(path).stem for path in self.paths)

    @property
    def worker_count(self) -> int:
        return self.workers or len(self.cores) or 1

    def member_weights(self) -> list[float]:
        return list(self.weights) or [1.0] * len(self.paths)


class JsonlSink(_Model):
    """`[[sinks]] type = "jsonl"`: one line of JSON a signal."""

    type: Literal["jsonl"]
    path: Annotated[str, Field(min_length=1)]
    """File to append to; `"-"` is standard output."""

    queue: Annotated[int, Field(ge=1, le=1 << 22)] = 8192
    """Signals that may wait for the disk. Beyond it the newest are dropped and counted."""


def _check_origin(value: object) -> object:
    if isinstance(value, str) and (_ORIGIN.fullmatch(value) is None):
        raise ValueError('expected an origin as a browser sends it, like "https://desk.example:8443"')
    return value


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@A-Z]+")
_Origin = Annotated[str, BeforeValidator(_check_origin)]


class WebSocketSink(_Model):
    """`[[sinks]] type = "websocket"`: broadcasts every signal as JSON to whoever connects."""

    type: Literal["websocket"]
    host: str = "127.0.0.1"
    """Address to listen on. Anything but this machine's own needs a token; there is no encryption, so a
    network that is not trusted needs a proxy in front."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    """Port to listen on; 0 takes a free one, and the report says which."""

    queue: Annotated[int, Field(ge=1, le=1 << 20)] = 1024
    """Signals that may wait for one client. Beyond it that client loses the newest, counted."""

    origins: Annotated[list[_Origin], Field(max_length=64)] = []
    """Web pages that may read the signals, by origin: `"https://desk.example"`. A browser sends the origin of
    the page that connects, and what is not named here is refused. Programs send none and are let in."""

    hosts: Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]], Field(max_length=64)] = []
    """Names that clients may call this machine by, besides `host`, its addresses and localhost: of a proxy
    in front, say. A request that names another host is refused: a page of somebody else's may have led it
    here."""

    token_file: str = ""
    """A file of one line that clients must know: `Authorization: Bearer …`, or `?token=…` from a page. Only
    its user may be able to read it. Empty: the environment's TICKWIRE_WEBSOCKET_TOKEN, if set, else none is
    asked for, which only an address of this machine's own allows."""


_SINKS: dict[str, type[_Model]] = {"jsonl": JsonlSink, "websocket": WebSocketSink}


def _sink(value: object) -> object:
    if isinstance(value, Mapping) and value.get("type") not in list(_SINKS):
        expected = ", ".join(f'"{name}"' for name in _SINKS)
        if "type" not in value:
            raise _at("type", f"required, one of {expected}", _MISSING)
        raise _at("type", f"expected one of {expected}{_nearest(str(value['type']), _SINKS)}", value["type"])
    return value


Sink = Annotated[JsonlSink | WebSocketSink, Field(discriminator="type"), BeforeValidator(_sink)]


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


_MISSING = _Missing()


class _Located(ValueError):
    """A finding about a key below the value that a validator looks at."""

    def __init__(self, key: str, expected: str, value: object) -> None:
        super().__init__(expected)
        self.key, self.value = key, value


def _at(key: str, expected: str, value: object) -> _Located:
    return _Located(key, expected, value)


def _nearest(key: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = nearest(key, known, cutoff=0.6)
    return f"; nearest known: {close}" if close else ""


# What a configuration is read from: its name in errors, the folder that its paths start at, and its text.
_SOURCE: contextvars.ContextVar[tuple[str, Path | None, str | None]] = contextvars.ContextVar(
    "source", default=("", None, None)
)


class Config(_Model):
    """A whole configuration file. Make one with `Config.from_toml` or `Config.from_dict`, or in Python with
    the tables' classes; however it was made, it was checked as a whole."""

    engine: Engine = Engine()
    memory: Memory = Memory()
    feeds: Annotated[list[Feed], Field(min_length=1, max_length=64)]
    features: Features
    model: Model | None = None
    models: Annotated[list[Model], Field(max_length=16)] = []
    record: Record = Record()
    sinks: list[Sink] = []

    _where: str = PrivateAttr("")
    _base: Path = PrivateAttr(Path())
    _text: str = PrivateAttr("")
    _names: list[str] = PrivateAttr(default_factory=list)
    _plan: Any = PrivateAttr(None)

    def __init__(self, /, **data: Any) -> None:
        """`ConfigError` names what is wrong. Relative paths start at the working folder."""
        where, base, text = _SOURCE.get()
        prefix = f"{where}: " if where else ""
        try:
            BaseModel.__init__(self, **data)
        except ValidationError as error:
            raise ConfigError("\n".join(prefix + line for line in _explain(error, data, Config))) from None
        self._where, self._base = where, base or Path.cwd()
        self._names = self._feed_names()
        try:
            self._check()
        except _Located as error:
            raise ConfigError(f"{prefix}{_line(error.key, str(error), error.value)}") from None
        self._text = text if text is not None else self.to_toml()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some tables changed, checked as a whole; its paths start where the original's do."""
        if not update:
            return super().model_copy(deep=deep)
        data = {**{name: getattr(self, name) for name in self.model_fields_set}, **update}
        return type(self).from_dict(data, where=self._where, base=self._base)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a file; `ConfigError` names what is wrong with it and where."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                data = file.read(4 * toml_text.MAX_BYTES + 1)
            if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise ConfigError(
                    f"{path}: expected UTF-8 text, found UTF-16; convert it: iconv -f UTF-16 -t UTF-8"
                )
            text = data.decode("utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: expected UTF-8 text: {error}") from None
        return cls.from_text(text, where=str(path), base=path.resolve().parent)

    @classmethod
    def from_text(cls, text: str, *, where: str = "", base: Path | None = None) -> Self:
        """Reads TOML text. `where` names it in errors; relative paths start at `base`."""
        text = text.removeprefix("\ufeff")  # A byte order mark, as some editors write it.
        try:
            data = toml_text.parse(text)
        except ValueError as error:
            raise ConfigError(f"{where or 'configuration'}: {error}") from None
        return cls.from_dict(data, where=where, base=base, text=text)

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, where: str = "", base: Path | None = None, text: str | None = None
    ) -> Self:
        """Reads what a TOML file would hold. Relative paths start at `base`, else at the working folder."""
        source = _SOURCE.set((where, base, text))
        try:
            return cls.model_validate(dict(data))
        finally:
            _SOURCE.reset(source)

    def _feed_names(self) -> list[str]:
        given = {feed.name for feed in self.feeds if feed.name}
        names: list[str] = []
        for feed in self.feeds:
            name, number = feed.name or feed.venue, 1
            while not feed.name and (name in given or name in names):
                number += 1
                name = f"{feed.venue}_{number}"
            names.append(name)
        return names

    def _check(self) -> None:
        """What no single table can see."""
        self._check_feeds()
        self._check_models()
        self._check_cores()
        self._check_features()

    def _check_feeds(self) -> None:
        owners: dict[tuple[str, str], tuple[str, Feed]] = {}
        names: set[str] = set()
        for i, (feed, name) in enumerate(zip(self.feeds, self._names, strict=True)):
            if name in names:
                raise _at(f"feeds[{i}].name", "expected a name that no other feed has", name)
            names.add(name)
            for j, instrument in enumerate(feed.instruments):
                path = f"feeds[{i}].instruments[{j}]"
                first = owners.setdefault((feed.venue, instrument.symbol), (path, feed))
                if first[0] == path:
                    continue
                if first[1].trades != feed.trades:
                    raise _at(
                        path,
                        f"expected one trade stream of one instrument: {first[0]} reads "
                        f"{first[1].trades!r} and this feed {feed.trades!r}, which are the same trades twice",
                        instrument.symbol,
                    )
                raise _at(
                    path,
                    f"expected each instrument of {feed.venue} once, but {first[0]} has it",
                    instrument.symbol,
                )

    def _check_models(self) -> None:
        if self.model is not None and self.models:
            raise _at("models", "expected either [model] or [[models]]", len(self.models))
        labels: dict[str, str] = {}
        for where, model in self._located_models():
            first = labels.setdefault(model.label, where)
            if first != where:
                raise _at(f"{where}.name", f"expected a name of its own, but {first} has it", model.label)
            if self.engine.layout == "inline":
                self._check_inline(where, model)
            if self.engine.layout != "processes":
                for key in _OF_PROCESSES:
                    # A default may be written down, as the effective configuration does.
                    if getattr(model, key) != Model.model_fields[key].default:
                        expected = 'expected none without engine.layout = "processes"'
                        raise _at(f"{where}.{key}", expected, getattr(model, key))
        if labels and all(model.shadow for model in self.all_models):
            where = next(iter(labels.values()))
            raise _at(f"{where}.shadow", "expected at least one model that is no shadow", True)

    def _check_inline(self, where: str, model: Model) -> None:
        on_the_feed = 'with engine.layout = "inline", where the model runs on the agent of each feed'
        if model.cores:
            expected = f"expected none {on_the_feed}; pin that with feeds[].core"
            raise _at(f"{where}.cores", expected, model.cores)
        if model.workers is not None:
            raise _at(f"{where}.workers", f"expected none {on_the_feed}", model.workers)
        if model.max_batch != 1:
            raise _at(f"{where}.max_batch", f"expected 1 {on_the_feed} and no row waits", model.max_batch)

    def _located_models(self) -> list[tuple[str, Model]]:
        if self.model is not None:
            return [("model", self.model)]
        return [(f"models[{i}]", model) for i, model in enumerate(self.models)]

    def wanted_cores(self) -> list[tuple[str, int]]:
        """Each core that a thread is to be pinned to, with the path of the key that says so."""
        wanted = [
            (f"feeds[{i}].core", feed.core) for i, feed in enumerate(self.feeds) if feed.core is not None
        ]
        for where, model in self._located_models():
            wanted += [(f"{where}.cores[{i}]", core) for i, core in enumerate(model.cores)]
        return wanted

    def _check_cores(self) -> None:
        taken: dict[int, str] = {}
        for path, core in self.wanted_cores():
            if core in taken:
                raise _at(path, f"expected a core of its own, but {taken[core]} has it", core)
            taken[core] = path

    def _check_features(self) -> None:
        from tickwire import features

        names = [text.strip() for text in self.features.rows]
        for i, text in enumerate(names):
            if text in names[:i]:
                first = names.index(text)
                raise _at(
                    f"features.rows[{i}]",
                    f"expected each expression once, but features.rows[{first}] is the same",
                    text,
                )
        try:
            self._plan = features.compile_rows(self.features.rows)
        except ConfigError as error:
            prefix = f"{self._where}: " if self._where else ""
            raise ConfigError(f"{prefix}{error}") from None
        by_order = [kernel for kernel in self._plan.kernels if features.KERNELS[kernel].by_order]
        for i, feed in enumerate(self.feeds):
            if by_order and not feed.by_order:
                raise _at(
                    f"feeds[{i}].venue",
                    f"expected a venue that tells of every order, for {by_order[0]}()",
                    feed.venue,
                )
            if feed.by_order:
                continue

    def warnings(self) -> list[str]:
        """What is no error and yet may not be what was meant, a line each."""
        from tickwire import features

        reach = features.reach(self.plan)
        lines = []
        for i, feed in enumerate(self.feeds):
            limit = int(feed.snapshot_limit or 0)
            if feed.by_order or limit >= min(10 * reach, _VENUES[feed.venue]["snapshot_limits"][-1]):
                continue
            how_often = (
                "at every move of the best price: no row is valid between"
                if limit <= reach
                else f"each time the market moves by {limit - reach} levels or so"
            )
            lines.append(
                f"feeds[{i}].snapshot_limit: features.rows look at {reach} levels and a snapshot shows "
                f"{limit}: another one is needed {how_often}; ten times as many levels are usual"
            )
        return lines

    @property
    def plan(self) -> Plan:
        """The compiled feature expressions."""
        return typing.cast("Plan", self._plan)

    @property
    def feed_names(self) -> list[str]:
        """Each feed's name, the given one or the one made for it, in the configuration's order."""
        return list(self._names)

    @property
    def where(self) -> str:
        """What errors call the configuration: its file."""
        return self._where

    @property
    def base(self) -> Path:
        """The folder that relative paths start at."""
        return self._base

    @property
    def text(self) -> str:
        """The configuration as TOML text: the file's own, or one written from the values."""
        return self._text

    @property
    def trigger(self) -> str:
        """`book`, `top`, `trade` or `every`."""
        return "every" if self.features.every is not None else self.features.trigger or "book"

    @property
    def every_ns(self) -> int:
        return parse_duration(self.features.every) if self.features.every is not None else 0

    @property
    def all_models(self) -> list[Model]:
        """The models, given as `[model]` or as `[[models]]`."""
        return [model for _, model in self._located_models()]

    def model_files(self, model: Model) -> list[Path]:
        """Where a model's files are."""
        return [self.path_of(path) for path in model.paths]

    def input_files(self) -> list[tuple[str, Path]]:
        """Every file that a run of this configuration reads, but for captures: what it is, and where."""
        files = [("the configuration", Path(self._where))] if self._where else []
        for model in self.all_models:
            files += [("a model", path) for path in self.model_files(model)]
        for feed in self.feeds:
            if feed.ca_file:
                files.append(("a feed's ca_file", self.path_of(feed.ca_file)))
            if feed.multicast is not None and feed.multicast.credentials:
                files.append(("the credentials", self.path_of(feed.multicast.credentials)))
        return files

    def _check_outputs(self, captures: Mapping[str, Sequence[str | os.PathLike[str]]]) -> None:
        """No file that a run writes is one that it reads."""
        inputs = [*self.input_files(), *(("an input", file) for files in captures.values() for file in files)]
        outputs = [("engine.stat_path", self.engine.stat_path)]
        outputs += [
            (f"sinks[{i}].path", sink.path)
            for i, sink in enumerate(self.sinks)
            if isinstance(sink, JsonlSink) and sink.path != "-"
        ]
        for key, path in outputs:
            if path:
                refuse_over(f"{self._where}: {key}" if self._where else key, self.path_of(path), inputs)

    def path_of(self, text: str) -> Path:
        """A path from the configuration, relative ones taken from the configuration's own folder."""
        return self._base / Path(text).expanduser()

    def schema(self) -> Schema:  # type: ignore[override]  # pydantic's own, long deprecated.
        """What a model must be bound to: the ordered features and everything that gives them meaning."""
        from tickwire import features

        streams = {feed.trades for feed in self.feeds}
        return features.Schema(
            plan=self.plan,
            trigger=self.trigger,
            every_ns=self.every_ns,
            clock=self.features.clock,
            window_rows=self.features.window_rows,
            trade_stream="+".join(sorted(streams)),
        )

    def resolve(
        self,
        *,
        replay: bool = False,
        inputs: Mapping[str, Sequence[str | os.PathLike[str]]] | None = None,
        record_dir: str | os.PathLike[str] | None = None,
        warm: Mapping[str, Sequence[str]] | None = None,
        models: Mapping[str, HeldModel] | None = None,
    ) -> dict[str, Any]:
        """The dictionary that the engine is built from.

        `models`: their files, read already, by their labels; without it they are read where they lie.

        A replay reads `inputs` (files by feed name), a live run begins with `warm` (the same). Cores, memory
        and spinning are the live host's business: a replay takes what it gets, anywhere.
        """
        self._check_outputs({**(inputs or {}), **(warm or {})})
        if not replay:
            self._check_host()
        feeds = []
        for i, (feed, name) in enumerate(zip(self.feeds, self._names, strict=True)):
            streams, trade_streams = feed.streams_by_connection()
            files = [os.fspath(file) for file in (inputs or {}).get(name, ())]
            if replay and not files:
                raise ConfigError(self._line(f"feeds[{i}]", "expected an input file to replay", name))
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
                    "ca_file": str(self.path_of(feed.ca_file)) if feed.ca_file else "",
                    "reconnect_min_ns": parse_duration(feed.reconnect_min),
                    "reconnect_max_ns": parse_duration(feed.reconnect_max),
                    "max_connection_age_ns": parse_duration(feed.max_connection_age),
                    "liveness_timeout_ns": parse_duration(feed.liveness_timeout),
                    "stale_after_ns": parse_duration(feed.stale_after),
                    "max_orders": feed.max_orders,
                    "midnights": self._midnights(i, feed, files, replay=replay) if feed.by_order else [],
                    "multicast": self._resolve_multicast(i, feed, replay=replay),
                }
            )
        return {
            "layout": self.engine.layout,
            "idle": self.engine.idle if not replay else "backoff",
            "output_slots": self.engine.output_slots,
            "stat_path": str(self.path_of(self.engine.stat_path)) if self.engine.stat_path else "",
            "huge_pages": self.memory.huge_pages if not replay else "auto",
            "lock": self.memory.lock if not replay else "auto",
            "replay": replay,
            "record_dir": os.fspath(record_dir) if record_dir is not None else "",
            "record_sync_ns": parse_duration(self.record.fsync_interval)
            if self.record.fsync == "interval"
            else 0,
            "feeds": feeds,
            "features": {
                "trigger": self.trigger,
                "every_ns": self.every_ns,
                "clock": self.features.clock,
                "window_rows": self.features.window_rows,
                "max_event_rate": self.features.max_event_rate,
                "trade_gaps": self.features.trade_gaps,
                "accept_beyond_depth": self.features.beyond_depth == "accept",
                "max_age_ns": 0 if replay else parse_duration(self.features.max_age),
                "nodes": list(self.plan.nodes),
                "outputs": list(self.plan.outputs),
            },
            "worker_program": str(worker_program()) if self._wants_workers else "",
            "models": [
                self._resolve_model(where, model, (models or {}).get(model.label), replay=replay)
                for where, model in self._located_models()
            ],
        }

    def max_age_ns(self, model: Model | None = None) -> int:
        """How old a signal of this model, or a row without one, may be when it leaves; 0: any age."""
        if model is not None and model.max_age_us is not None:
            return model.max_age_us * 1000
        return parse_duration(self.features.max_age)

    def worker_policies(self) -> list[WorkerPolicy]:
        """How the workers of each model are kept, in the layout `processes`."""
        from tickwire.supervisor import WorkerPolicy

        return [
            WorkerPolicy(
                restart_backoff_s=parse_duration(model.restart_backoff) / 1e9,
                max_restarts=model.max_restarts,
                restart_window_s=parse_duration(model.restart_window) / 1e9,
                heartbeat_timeout_s=parse_duration(model.heartbeat_timeout) / 1e9,
                start_timeout_s=parse_duration(model.start_timeout) / 1e9,
                max_rss_bytes=model.max_rss_mb << 20,
            )
            for model in self.all_models
        ]

    @property
    def _wants_workers(self) -> bool:
        return self.engine.layout == "processes" and bool(self.all_models)

    def _midnights(self, index: int, feed: Feed, files: Sequence[str], *, replay: bool) -> list[int]:
        """When the day of each file began, 0 where that follows from the packets' stamps. Live the configured
        day's, or nothing."""
        midnights = []
        for file in files if replay else [feed.date] if feed.date else []:
            day = _date_of(feed.date or Path(file).name)
            is_file = replay and os.path.isfile(file)
            if is_file and os.path.getsize(file) and not _is_pcap(file):
                # Before its name is asked for the day: it may be no day file at all.
                _core().check_day_file(file)
            elif day is None and is_file:
                midnights.append(0)
                continue
            if day is None:
                raise ConfigError(
                    self._line(
                        f"feeds[{index}].date",
                        f'expected the day of {file}, like "2020-01-30": its name does not say it',
                        feed.date,
                    )
                )
            midnights.append(new_york_midnight_ns(day))
        return midnights

    def _resolve_multicast(self, index: int, feed: Feed, *, replay: bool) -> dict[str, Any] | None:
        multicast = feed.multicast
        if multicast is None:
            return None
        username = password = ""
        if multicast.glimpse and not replay and feed.source == "multicast":
            key = f"feeds[{index}].multicast.credentials"
            path = self.path_of(multicast.credentials) if multicast.credentials else None
            try:
                username, password = _read_credentials(path)
            except ValueError as error:
                found = multicast.credentials or _MISSING
                raise ConfigError(self._line(key, str(error), found)) from None
        return multicast.resolve(username, password)

    def _resolve_model(
        self, where: str, model: Model, held: HeldModel | None, *, replay: bool
    ) -> dict[str, Any]:
        from tickwire import models

        if held is not None:
            members, number = held.members, held.number
        else:
            files, weights = self.model_files(model), model.member_weights()
            members = [(str(file), weight, -1) for file, weight in zip(files, weights, strict=True)]
            try:
                number = model_id(files, weights)
            except OSError as error:
                expected = f"expected a file that can be read ({error.strerror})"
                raise ConfigError(self._line(f"{where}.path", expected, error.filename)) from None
        return {
            "name": model.label,
            "members": members,
            "id": number,
            "ort_library": str(models.onnxruntime_library()),
            "provider": model.provider,
            "cache_dir": str(self.path_of(model.cache_dir)) if model.cache_dir else "",
            "workers": model.worker_count,
            "cores": [] if replay else list(model.cores),
            # A replay's rows keep their order, and none can be late.
            "assign": model.assign if not replay else "instrument",
            "max_batch": model.max_batch,
            "max_age_ns": 0 if replay else self.max_age_ns(model),
            "queue_slots": model.queue_slots,
            "policy": model.policy,
            "queue_limit": model.queue_limit,
            "shadow": model.shadow and not replay,  # In a replay the router tells them apart.
            "start_timeout_ns": parse_duration(model.start_timeout),
        }

    def _check_host(self) -> None:
        """What only the machine that runs it live can answer."""
        usable = os.sched_getaffinity(0)
        for path, core in self.wanted_cores():
            if core not in usable and not can_run_on(core):
                listed = ", ".join(map(str, sorted(usable)))
                raise ConfigError(
                    self._line(path, f"expected a core that this process may use ({listed})", core)
                )
        for i, feed in enumerate(self.feeds):
            if feed.source == "file":
                expected = 'expected "websocket" for a live run; replay a file with --input'
                if feed.by_order:
                    expected = (
                        'expected "multicast", and that table, for a live run; replay a file with --input'
                    )
                raise ConfigError(self._line(f"feeds[{i}].source", expected, feed.source))

    def _line(self, key: str, expected: str, value: object) -> str:
        return (f"{self._where}: " if self._where else "") + _line(key, expected, value)

    def to_toml(self) -> str:
        """The whole effective configuration, defaults included, as TOML text."""
        return _toml(self.model_dump(exclude_none=True))


def worker_program() -> Path:
    """The program that runs a model in a process of its own: $TICKWIRE_WORKER, else what was installed."""
    if named := os.environ.get("TICKWIRE_WORKER"):
        places = [Path(named)]
    else:
        places = [Path(sysconfig.get_path("scripts")) / "tickwire-worker"]
        places.append(Path(sys.executable).with_name("tickwire-worker"))
        if (found := shutil.which("tickwire-worker")) is not None:
            places.append(Path(found))
    for place in places:
        if os.access(place, os.X_OK) and place.is_file():
            return place
    tried = ", ".join(dict.fromkeys(map(str, places)))
    raise ConfigError(
        'engine.layout: "processes" needs the program tickwire-worker, which is installed with tickwire: '
        f"expected it at {tried}; install tickwire again, or name its place in TICKWIRE_WORKER"
    )


def model_id(files: Sequence[Path], weights: Sequence[float]) -> int:
    """What signals carry to name their model: the first four bytes of the file's SHA-256, or of one over
    the files' and their weights. `OSError` where a file cannot be read."""
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return model_number(digests, weights)


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    # A JSON string with its escapes is a TOML basic string, DEL aside, which JSON leaves bare.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml(data: Mapping[str, Any]) -> str:
    lines: list[str] = []
    for key, value in data.items():
        tables = value if isinstance(value, list) else [value]
        for table in tables:
            lines.append(f"[[{key}]]" if isinstance(value, list) else f"[{key}]")
            lines += [f"{name} = {_toml_value(item)}" for name, item in table.items()]
            lines.append("")
    return "\n".join(lines)


def _is_pcap(path: str) -> bool:
    """Is it a packet capture, by what it begins with?"""
    return bool(_core().is_pcap(path))


def _core() -> Any:
    # An import of the whole engine, which most configurations do without.
    from tickwire.engine import core_module

    return core_module()


def can_run_on(core: int) -> bool:
    """Whether a thread of ours may go there, although we are not there now: a boot line that isolates the
    core, or a service that keeps us off it, leaves it out of our own set and does not forbid it."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {core})
    except (OSError, OverflowError, ValueError):
        return False
    try:
        return os.sched_getaffinity(0) == {core}
    finally:
        os.sched_setaffinity(0, before)


def _line(key: str, expected: str, value: object) -> str:
    found = "" if value is _MISSING else f", found {_shown(value)}"
    return f"{key}: {expected}{found}"


def _shown(value: object) -> str:
    # A password in a URL is nobody's to read, whatever else is wrong with it.
    text = re.sub(r"//[^/\s@]*@", "//…@", repr(value))
    return text if len(text) <= 120 else text[:117] + "..."


def _explain(error: ValidationError, data: object, root: type[BaseModel]) -> list[str]:
    """One line a finding, in the order of the file's tables. `root`: what the data should have made."""
    lines = []
    for item in error.errors(include_url=False):
        path, value, model = _locate(item["loc"], data, root)
        kind, context = item["type"], item.get("ctx", {})
        cause = context.get("error")
        if kind == "extra_forbidden":
            key = str(item["loc"][-1])
            known = list(model.model_fields) if model is not None else []
            close = nearest(key, known, cutoff=0.5)
            hint = f"nearest known key: {close}" if close else f"known keys: {', '.join(known)}"
            # Not what may be a password under another name.
            found = "" if model is Multicast else f", found {_shown(value)}"
            lines.append(f"{path}: unknown key{found}; {hint}")
        elif kind == "missing":
            lines.append(f"{path}: required")
        elif isinstance(cause, _Located):
            key = ".".join(part for part in (path, cause.key) if part)
            lines.append(_line(key, str(cause), cause.value))
        elif isinstance(cause, ValueError):
            lines.append(_line(path, str(cause), value))
        else:
            lines.append(_line(path, _expected(kind, context, item["msg"], value), value))
    return lines


def _expected(kind: str, context: Mapping[str, Any], message: str, value: object) -> str:
    """pydantic's finding in this project's words."""
    if kind == "literal_error":
        text = str(context["expected"]).replace("'", '"').replace(" or ", ", ")
        close = _nearest(value, re.findall(r'"([^"]*)"', text)) if isinstance(value, str) else ""
        return f"expected one of {text}{close}"
    table = {
        "string_type": "a string",
        "bool_type": "true or false",
        "list_type": "a list",
        "int_type": "an integer",
        "float_type": "a number",
        "model_type": "a table",
        "model_attributes_type": "a table",
        "dict_type": "a table",
        "string_too_short": "a text that is not empty",
        "too_short": "at least one",
    }
    if kind in table:
        return f"expected {table[kind]}"
    if kind == "greater_than_equal":
        return f"expected at least {context['ge']}"
    if kind == "less_than_equal":
        return f"expected at most {context['le']}"
    if kind == "too_long":
        return f"expected at most {context['max_length']} entries"
    if kind == "string_too_long":
        return f"expected at most {context['max_length']} characters"
    return message[:1].lower() + message[1:]


def _locate(
    loc: tuple[int | str, ...], data: object, root: type[BaseModel]
) -> tuple[str, object, type[BaseModel] | None]:
    """The key's path as the file shows it, the value there, and the model that holds the key."""
    path, value = "", data
    model: type[BaseModel] | None = root
    holder: type[BaseModel] | None = root
    for part in loc:
        if isinstance(value, BaseModel):  # A table made in Python.
            value = {name: getattr(value, name) for name in type(value).model_fields}
        if isinstance(part, int):
            path += f"[{part}]"
            value = value[part] if isinstance(value, list) and part < len(value) else _MISSING
        elif part in _SINKS and not (isinstance(value, Mapping) and part in value):
            model = _SINKS[part]  # The tag of a union, not a key of the file.
        else:
            path += f".{part}" if path else part
            value = value.get(part, _MISSING) if isinstance(value, Mapping) else _MISSING
            holder = model
            model = _model_of(model, part)
    return path, value, holder


def _model_of(model: type[BaseModel] | None, field: str) -> type[BaseModel] | None:
    """The table model that a field's values are, where they are tables."""
    if model is None or field not in model.model_fields:
        return None
    pending: list[Any] = [model.model_fields[field].annotation]
    while pending:
        kind = pending.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
        pending.extend(typing.get_args(kind))
    return None
