"""`[feeds.multicast]`: MoldUDP64 lines, the re-request server and GLIMPSE."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from tickwire.config.endpoints import (
    Endpoint,
    Interface,
    Rerequest,
    Server,
    SourceAddress,
    check_endpoint,
    endpoint,
)
from tickwire.toml.table import Duration, Table
from tickwire.toml.words import MISSING, at
from tickwire.units import parse_duration

__all__ = ["Multicast", "MulticastLine"]


class MulticastLine(Table):
    address: Endpoint
    """The group and its port, in numbers: `"233.54.12.111:26477"`. Or an address of this host, where
    something else brings the line there."""

    interface: Interface = ""
    """Network interface that the line comes in on. Empty: the table's own."""

    source_address: SourceAddress = ""
    """Join for this sender alone (source-specific multicast), the first defence against anybody else on the
    network. Empty: the table's own."""

    @model_validator(mode="after")
    def _fits(self) -> MulticastLine:
        for key in ("interface", "source_address"):
            if getattr(self, key) and not self.is_group:
                raise at(key, f"expected none for {self.address}, which is no group", getattr(self, key))
        if self.source_address and not self.goes_with(self.source_address):
            raise at("source_address", "expected the group's kind of address", self.source_address)
        return self

    @property
    def is_group(self) -> bool:
        return endpoint(self.address)[0].is_multicast

    def goes_with(self, source_address: str) -> bool:
        return ipaddress.ip_address(source_address).version == endpoint(self.address)[0].version


def _line_table(value: object) -> object:
    if isinstance(value, str):
        check_endpoint(value)
        return {"address": value}
    return value


# What says nothing without a server to ask.
_OF_REREQUEST = ("request_attempts", "request_timeout", "request_interval", "request_messages")
_OF_GLIMPSE = ("credentials", "glimpse_session", "glimpse_retry", "glimpse_timeout")
_MOST_NS = 3_600_000_000_000


class Multicast(Table):
    """`[feeds.multicast]`: where a venue's MoldUDP64 lines are, and what brings back what they lose."""

    hides_values: ClassVar[bool] = True

    lines: Annotated[
        list[Annotated[MulticastLine, BeforeValidator(_line_table)]], Field(min_length=1, max_length=8)
    ]
    """The lines that carry the stream, usually A and B: `"233.54.12.111:26477"`, or tables
    `{address = "…", interface = "…", source_address = "…"}`. The first copy of a message wins."""

    interface: Interface = ""
    """Network interface of the lines that name none. Empty: by the host's routes, which on a host with
    several cards are rarely the ones meant."""

    source_address: SourceAddress = ""
    """Sender of the lines that name none, to join for it alone (source-specific multicast): what anybody else
    on the network sends to the group never arrives, which is the first defence against stray datagrams. A
    replay of a capture takes that sender's datagrams alone, too. Empty: any."""

    rerequest: Rerequest = ""
    """The re-request server, `"10.1.2.3:17777"`: it sends again what no line brought. Empty: there is none,
    and a gap goes to GLIMPSE at once."""

    glimpse: Server = ""
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
                raise at(key, expected, MISSING)
        return data

    @model_validator(mode="after")
    def _fits(self) -> Multicast:
        first: dict[tuple[str, str, str], int] = {}
        for i, line in enumerate(self.lines):
            if self.source_address and line.is_group and not line.goes_with(self.source_address):
                expected = f"expected the kind of address of lines[{i}], or one in each line's own table"
                raise at("source_address", expected, self.source_address)
            if first.setdefault(self.whole(line), i) != i:
                expected = f"expected each line once, but lines[{first[self.whole(line)]}] is the same"
                raise at(f"lines[{i}]", expected, line.address)
        for server, keys in (("rerequest", _OF_REREQUEST), ("glimpse", _OF_GLIMPSE)):
            for key in keys:
                # A default may be written down, as the effective configuration does.
                if not getattr(self, server) and getattr(self, key) != Multicast.model_fields[key].default:
                    raise at(key, f"expected none without {server}", getattr(self, key))
        for key, zero in (
            ("reorder_window", True),
            ("request_timeout", False),
            ("request_interval", True),
            ("glimpse_retry", False),
            ("glimpse_timeout", False),
        ):
            if not (0 if zero else 1) <= parse_duration(getattr(self, key)) <= _MOST_NS:
                expected = "expected at most an hour" if zero else "expected more than zero, an hour at most"
                raise at(key, expected, getattr(self, key))
        return self

    def joined(self) -> dict[int, tuple[str, str, str]]:
        """Address with its port, interface and sender of the lines that are groups, by their number."""
        return {i: self.whole(line) for i, line in enumerate(self.lines) if line.is_group}

    def whole(self, line: MulticastLine) -> tuple[str, str, str]:
        """Address, interface and sender of a line, the table's own where it names none."""
        if not line.is_group:
            return line.address, "", ""
        return line.address, line.interface or self.interface, line.source_address or self.source_address
