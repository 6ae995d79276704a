"""A market that plays a capture: the recorded messages, byte for byte, in the recorded order."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from tickwire.sim.book import TruthBook
from tickwire.sim.market import Diff, Market, Message, rules_of

__all__ = ["CaptureMarket"]


def _open(path: Path) -> BinaryIO:
    opener = gzip.open if path.suffix == ".gz" else open
    return cast("BinaryIO", opener(path, "rb"))


def _diff(data: dict[str, Any]) -> Diff:
    event_ms = int(data["E"])
    return Diff(int(data["U"]), int(data["u"]), event_ms, int(data.get("T", event_ms)), data["b"], data["a"])


class CaptureMarket(Market):
    """Plays one or several capture files (`.gz` accepted), one after another.

    The first snapshot of an instrument in the capture is the book to start from, also for a client
    that asks before the play has come to it: such a snapshot is ahead of the stream, as it may be at
    a venue, and the diffs up to its id are the ones that a client drops. A later snapshot repairs
    the book where the recording itself had lost messages.
    """

    def __init__(self, market: str, paths: Sequence[str | Path]) -> None:
        self.rules = rules_of(market)
        self._paths = [Path(path) for path in paths]
        if not self._paths:
            raise ValueError("capture: expected at least one file")
        self.books: dict[str, TruthBook] = {}
        symbols, snapshots = self._survey()
        self.instruments = tuple(sorted(symbols))
        for symbol in self.instruments:
            if symbol not in snapshots:
                raise ValueError(f"{self._paths[0]}: no snapshot of {symbol}, so no REST depth can be served")
            self.books[symbol] = book = TruthBook(market, symbol)
            book.load(snapshots[symbol])

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        for path in self._paths:
            with _open(path) as file:
                for line in file:
                    stamp, _, message = line.rstrip(b"\r\n").partition(b" ")
                    if stamp.isdigit() and message.startswith(b"{"):
                        yield int(stamp), message

    def _survey(self) -> tuple[set[str], dict[str, dict[str, Any]]]:
        """The instruments with a depth stream, and the first snapshot of each."""
        symbols: set[str] = set()
        streams: set[bytes] = set()
        snapshots: dict[str, dict[str, Any]] = {}
        bare: dict[str, Any] | None = None
        for _, message in self._lines():
            if message.startswith(b'{"stream":"'):
                stream = message[11 : message.index(b'"', 11)]
                if stream not in streams:
                    streams.add(stream)
                    if b"@depth" in stream:
                        symbols.add(json.loads(message)["data"]["s"])
            elif message.startswith(b'{"tickwire"'):
                ours = json.loads(message)
                if ours["tickwire"] == "snapshot":
                    snapshots.setdefault(ours["instrument"], ours["body"])
            elif b'"lastUpdateId"' in message[:64]:
                bare = bare or json.loads(message)
            elif b'"depthUpdate"' in message[:200]:
                symbols.add(json.loads(message)["s"])
        if bare is not None:
            if len(symbols) != 1:
                raise ValueError(f"{self._paths[0]}: a bare snapshot line needs a capture of one instrument")
            snapshots.setdefault(next(iter(symbols)), bare)
        return symbols, snapshots

    def messages(self) -> Iterator[Message]:
        start_ns: int | None = None
        started: set[str] = set()
        for ts_recv, message in self._lines():
            if start_ns is None:
                start_ns = ts_recv
            due_ns = ts_recv - start_ns
            if message.startswith(b'{"stream":"') and b'","data":' in message[:200]:
                stream, _, rest = message[11:].partition(b'","data":')
                data = rest[:-1]
            elif message.startswith((b'{"e":', b'{"u":')):
                data = message
                stream = self._raw_stream(json.loads(message))
            else:
                repair = self._later_snapshot(message, started)
                if repair is not None:
                    yield Message(due_ns, repair[0], "", b"", repair=repair[1])
                elif started and message.startswith(b'{"tickwire":"open"'):
                    yield Message(due_ns, "", "", b"", reopened=True)
                continue
            symbol = stream[: stream.index(b"@")].decode().upper()
            diff = _diff(json.loads(data)) if b"@depth" in stream else None
            yield Message(due_ns, symbol, stream.decode(), data, diff)

    def _later_snapshot(self, message: bytes, started: set[str]) -> tuple[str, dict[str, Any]] | None:
        """The snapshot in a line that is none of the venue's messages, unless the books began with it."""
        if message.startswith(b'{"tickwire"'):
            ours = json.loads(message)
            if ours["tickwire"] != "snapshot":
                return None
            symbol, body = ours["instrument"], ours["body"]
        elif b'"lastUpdateId"' in message[:64]:
            symbol, body = self.instruments[0], json.loads(message)
        else:
            return None
        if symbol not in started:
            started.add(symbol)
            return None
        return symbol, body

    @staticmethod
    def _raw_stream(data: dict[str, Any]) -> bytes:
        kind = {"depthUpdate": "depth"}.get(data.get("e", ""), data.get("e", "bookTicker"))
        return f"{data['s'].lower()}@{kind}".encode()
