"""`[[feeds]]`: a venue, its instruments, and how the connection to it is kept."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from tickwire.config.multicast import Multicast
from tickwire.toml.table import Duration, Name, Table
from tickwire.toml.words import MISSING, at, nearest_known
from tickwire.units import parse_duration
from tickwire.venues import VENUES, OrderVenue, StreamVenue

__all__ = ["Feed", "Instrument"]


def _instrument(value: object) -> object:
    return {"symbol": value} if isinstance(value, str) else value


class _Instrument(Table):
    symbol: Annotated[str, Field(min_length=1, max_length=32)]
    """The venue's own name, in upper case: `BTCUSDT`, `BTCUSD_PERP`, `BRK.A`."""

    price_decimals: Annotated[int, Field(ge=0, le=18)] = 8
    """Decimal digits that a price may have. More digits than this in a message are refused, never rounded;
    fewer leave more room above: a price times ten to this power must stay below 9.2e18."""

    qty_decimals: Annotated[int, Field(ge=0, le=18)] = 8
    """Decimal digits that a quantity may have; as `price_decimals`."""


Instrument = Annotated[_Instrument, BeforeValidator(_instrument)]


def _check_venue(value: object) -> object:
    if value not in list(VENUES):  # It may be any type.
        close = nearest_known(value, VENUES) if isinstance(value, str) else ""
        raise ValueError(_one_of(list(VENUES)) + close)
    return value


_OF_BY_ORDER = ("date", "max_orders", "multicast")
_OF_ANY_VENUE = ("name", "venue", "source", "instruments", "core", *_OF_BY_ORDER)
# MoldUDP64 sends a heartbeat each second.
_LINE_LIVENESS = "5s"


_DAY = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}")


def _check_date(value: object) -> object:
    if type(value) is datetime.date:
        return value.isoformat()  # TOML's own form of a day, without quotes.
    if value == "":
        return value
    with contextlib.suppress(ValueError):  # Of the form, and no day there is.
        if isinstance(value, str) and _DAY.fullmatch(value) and datetime.date.fromisoformat(value):
            return value
    raise ValueError('expected a day like "2020-01-30"')


def _one_of(known: Sequence[str]) -> str:
    return "expected one of " + ", ".join(f'"{each}"' for each in known)


def _decimals(venue: OrderVenue) -> dict[str, int]:
    """What the venue itself says of its numbers."""
    return {"price_decimals": venue.price_decimals, "qty_decimals": venue.qty_decimals}


class Feed(Table):
    """`[[feeds]]`: one venue, or a part of its instruments, with its own ingest agent."""

    name: Name = ""
    """What counters, captures and `--input NAME=FILE` call it. Empty: the venue's name, made unique."""

    venue: Annotated[str, BeforeValidator(_check_venue)]
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

    instruments: Annotated[list[Instrument], Field(min_length=1)]
    """Symbols, or tables `{symbol = "…", price_decimals = …, qty_decimals = …}`. At most 512 of one feed over
    WebSocket; of `nasdaq_itch` as many as the venue has."""

    trades: str = "trade"
    """Which of the venue's trade streams to read, `"trade"` or `"aggTrade"`. Not both: they tell of the same
    trades."""

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

    @field_validator("trades", mode="before")
    @classmethod
    def _one_trade_stream(cls, value: object, info: ValidationInfo) -> object:
        venue = VENUES.get(info.data.get("venue", ""))
        if not isinstance(venue, StreamVenue) or value in list(venue.trade_streams):
            return value
        expected = _one_of(venue.trade_streams)
        if isinstance(value, list):
            raise ValueError(
                f"{expected}: all are the same trades, and two trade streams of one instrument would count "
                "each of them twice"
            )
        raise ValueError(
            expected + (nearest_known(value, venue.trade_streams) if isinstance(value, str) else "")
        )

    @model_validator(mode="before")
    @classmethod
    def _venue_defaults(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("venue") not in list(VENUES):  # It may be any type.
            return data  # The venue's own error says it better.
        venue = VENUES[str(data["venue"])]
        if isinstance(venue, OrderVenue):
            return cls._by_order_defaults(data, venue)
        if not isinstance(venue, StreamVenue):
            return data
        filled = {"trades": venue.trade_streams[0], **data}
        trades_url = venue.trades_urls.get(str(filled["trades"]))
        if trades_url and not filled.get("url") and not filled.get("trades_url"):
            filled["trades_url"] = trades_url
        for key, default in (
            ("url", venue.url),
            ("rest_url", venue.rest_url),
            ("depth_interval", venue.depth_intervals[0]),
            ("snapshot_limit", venue.snapshot_limits[-1]),
        ):
            if filled.get(key) in (None, ""):
                filled[key] = default
        return filled

    @staticmethod
    def _by_order_defaults(data: Mapping[str, Any], venue: OrderVenue) -> dict[str, Any]:
        live = data.get("multicast") is not None
        filled = {"source": "multicast" if live else "file", **data}
        if live:
            filled.setdefault("liveness_timeout", _LINE_LIVENESS)
        if isinstance(filled.get("instruments"), list):
            filled["instruments"] = [
                {**_decimals(venue), **item} if isinstance(item := _instrument(given), Mapping) else item
                for given in filled["instruments"]
            ]
        return filled

    def _fits_by_order(self, venue: OrderVenue) -> Feed:
        for i, instrument in enumerate(self.instruments):
            for key, decimals in _decimals(venue).items():
                if getattr(instrument, key) != decimals:
                    expected = f"expected none, or the venue's {decimals}"
                    raise at(f"instruments[{i}].{key}", expected, getattr(instrument, key))
        if self.source == "multicast" and self.multicast is None:
            raise at("multicast", 'required with source = "multicast"', MISSING)
        if self.source == "websocket":
            raise at("source", f'expected "multicast" or "file" for {self.venue}', self.source)
        of_this = (*_OF_ANY_VENUE, "liveness_timeout") if self.multicast is not None else _OF_ANY_VENUE
        for key, field in Feed.model_fields.items():
            # A default may be written down, as the effective configuration does.
            if key not in of_this and getattr(self, key) != field.default:
                raise at(key, f"expected none for {self.venue}", getattr(self, key))
        return self

    @property
    def by_order(self) -> bool:
        """Does the venue tell of every order?"""
        return isinstance(VENUES[self.venue], OrderVenue)

    @property
    def deepest_snapshot(self) -> int:
        """Levels a side of the venue's deepest snapshot; 0 where it tells of every order."""
        venue = VENUES[self.venue]
        return venue.snapshot_limits[-1] if isinstance(venue, StreamVenue) else 0

    @model_validator(mode="after")
    def _fits_venue(self) -> Feed:
        venue = VENUES[self.venue]
        for i, instrument in enumerate(self.instruments):
            expected = venue.check_symbol(instrument.symbol)
            if expected is not None:
                raise at(f"instruments[{i}]", expected, instrument.symbol)
        if len(self.instruments) > venue.most_instruments:
            expected = f"expected at most {venue.most_instruments} entries for {self.venue}"
            raise at("instruments", expected, len(self.instruments))
        if isinstance(venue, OrderVenue):
            return self._fits_by_order(venue)
        if not isinstance(venue, StreamVenue):
            return self
        for key in _OF_BY_ORDER:
            if getattr(self, key) != Feed.model_fields[key].default:
                found = getattr(self, key) if key != "multicast" else MISSING
                raise at(key, f"expected none for {self.venue}", found)
        if self.source == "multicast":
            raise at("source", f'expected "websocket" or "file" for {self.venue}', self.source)
        if self.depth_interval not in venue.depth_intervals:
            expected = f"{_one_of(venue.depth_intervals)} for {self.venue}"
            raise at("depth_interval", expected, self.depth_interval)
        if self.snapshot_limit not in venue.snapshot_limits:
            limits = venue.snapshot_limits
            expected = (
                f"1 to {limits[-1]}" if isinstance(limits, range) else f"one of {', '.join(map(str, limits))}"
            )
            raise at("snapshot_limit", f"expected {expected} for {self.venue}", self.snapshot_limit)
        if self.max_levels < int(self.snapshot_limit or 0):
            raise at(
                "max_levels", f"expected at least snapshot_limit = {self.snapshot_limit}", self.max_levels
            )
        ws, http = ("ws://", "wss://"), ("http://", "https://")
        for key, schemes in (("url", ws), ("trades_url", ws), ("rest_url", http)):
            value = str(getattr(self, key))
            if key == "trades_url" and not value:
                continue
            if not value.startswith(schemes):
                raise at(key, f"expected a URL that begins with {' or '.join(schemes)}", value)
            try:
                parts = urlsplit(value)
                whole = bool(parts.hostname) and parts.port != 0
            except ValueError:
                whole = False
            if not whole:
                raise at(key, "expected a URL with a host, and a port that there is", value)
            if "@" in parts.netloc:
                # It would stand in recordings, reports and logs; and so it is not shown here either.
                raise at(key, "expected a URL without a user name and a password", MISSING)
        if parse_duration(self.reconnect_min) > parse_duration(self.reconnect_max):
            raise at(
                "reconnect_min",
                f"expected at most reconnect_max = {self.reconnect_max!r}",
                self.reconnect_min,
            )
        if parse_duration(self.reconnect_min) == 0:
            raise at(
                "reconnect_min", "expected more than zero: a venue bans who reconnects without pause", "0"
            )
        if parse_duration(self.snapshot_backoff) == 0:
            raise at(
                "snapshot_backoff",
                "expected more than zero: a venue bans who asks without pause",
                self.snapshot_backoff,
            )
        return self

    def streams(self) -> list[str]:
        """Names of the streams to subscribe to, in the configuration's order."""
        venue = VENUES[self.venue]
        if not isinstance(venue, StreamVenue):
            return []
        return [
            name
            for instrument in self.instruments
            for name in venue.streams(
                instrument.symbol,
                depth_interval=self.depth_interval,
                trades=self.trades,
                quotes=self.quotes,
            )
        ]

    def streams_by_connection(self) -> tuple[list[str], list[str]]:
        """The streams of `url` and those of `trades_url`; none of these where it is empty."""
        streams, venue = self.streams(), VENUES[self.venue]
        if not self.trades_url or not isinstance(venue, StreamVenue):
            return streams, []
        trades = [venue.trade_stream(each.symbol, self.trades) for each in self.instruments]
        return [stream for stream in streams if stream not in trades], trades
