"""Local venues for tests, the demo and benchmarks: WebSocket streams and REST depth on 127.0.0.1.

    async with Venue([SyntheticMarket("usdm", instruments=2, rate=2000, seed=7)]) as venue:
        venue.ws_url["usdm"], venue.rest_url["usdm"]

A `Venue` is one aiohttp server on one port. It serves one or several markets; a market is where the
messages come from: a capture (`CaptureMarket`) or a seeded random book (`SyntheticMarket`). The
venue keeps the true book of every instrument beside the stream, so that a snapshot asked for at any
moment has the id and the levels of that moment. `python -m tickwire.sim` is the same from a shell.

A `MulticastVenue` sends ITCH on two multicast lines instead, with a re-request server and GLIMPSE beside
them; `SyntheticItch` is a seeded market for it, and `tickwire sim --multicast` the shell's.
"""

from __future__ import annotations

from tickwire.sim.book import TruthBook
from tickwire.sim.capture import CaptureMarket
from tickwire.sim.faults import Faults
from tickwire.sim.itch import ItchState, SyntheticItch, TimedMessage
from tickwire.sim.market import Diff, Market, Message, Rules, rules_of
from tickwire.sim.multicast import LineFaults, MulticastVenue
from tickwire.sim.server import BookChange, Venue
from tickwire.sim.synthetic import SyntheticMarket, write_capture

__all__ = [
    "BookChange",
    "CaptureMarket",
    "Diff",
    "Faults",
    "ItchState",
    "LineFaults",
    "Market",
    "Message",
    "MulticastVenue",
    "Rules",
    "SyntheticItch",
    "SyntheticMarket",
    "TimedMessage",
    "TruthBook",
    "Venue",
    "rules_of",
    "write_capture",
]
