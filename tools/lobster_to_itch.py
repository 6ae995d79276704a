"""Re-encodes a LOBSTER day (message file and order book file) as an ITCH 5.0 day file.

    python tools/lobster_to_itch.py LOBSTER.zip day.itch

The zip holds TICKER_DATE_…_message_N.csv and …_orderbook_N.csv, row i of the book being the state after
message i. Messages become A, X, D, E, P and H with their own times, references, sizes and prices.

A LOBSTER file of N levels knows neither the orders that rested before its first message nor what happens
deeper than N levels. So the day begins with a book made of row 0, and before a message whose row shows a
level that the row before it did not show, that level is put right: by orders of nobody's, whose references
begin above all of the file's. What both rows show is never touched, so there the book is the messages' doing
alone. An order that a message names and nobody added stands in such an unnamed quantity; it is given its name
first.
"""

from __future__ import annotations

import argparse
import bisect
import csv
import io
import struct
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

LOCATE = 1
NOBODY = 1 << 56
_EMPTY = 9_999_999_999  # Price of a level that is not there.

Key = tuple[str, int]  # Side and price.


class LobsterError(ValueError):
    """The two files do not belong together, or hold what the format does not have."""


class Encoder:
    """Keeps the orders as the ITCH stream has them; `encode` gives the messages of one LOBSTER row."""

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol.ljust(8)[:8].encode()
        self._ts = 0
        self._out: list[bytes] = []
        self._orders: dict[int, tuple[Key, int]] = {}
        self._named: dict[Key, set[int]] = {}  # Orders of the file's at a price …
        self._unnamed: dict[Key, tuple[int, int]] = {}  # … and nobody's: reference and quantity.
        self._next = NOBODY
        self._prices: dict[str, list[int]] = {"B": [], "S": []}  # Where orders may stand, the best last.
        self._shown: dict[Key, int] = {}
        self._match = 0

    def begin(self, ts_ns: int) -> list[bytes]:
        self._ts = ts_ns
        rest = b"QN" + struct.pack(">I", 100) + b"NCZ PNN1N" + struct.pack(">I", 0) + b"N"
        self._say(b"R", self._symbol + rest)
        self._state("T")
        return self._take()

    def encode(
        self, ts_ns: int, kind: int, ref: int, size: int, price: int, side: int, row: Sequence[int]
    ) -> list[bytes]:
        """The messages of one row; the last one is the row's own."""
        self._ts = ts_ns
        key = ("B" if side == 1 else "S", price)
        change = {1: size, 2: -size, 3: -size, 4: -size}.get(kind, 0)
        shown = _levels(row)
        self._reveal(shown, key, change)
        self._act(kind, ref, size, key)
        self._shown = shown
        return self._take()

    def _take(self) -> list[bytes]:
        out, self._out = self._out, []
        return out

    def _say(self, kind: bytes, body: bytes) -> None:
        self._out.append(kind + struct.pack(">HH", LOCATE, 0) + self._ts.to_bytes(6, "big") + body)

    def _state(self, state: str) -> None:
        self._say(b"H", self._symbol + state.encode() + b"     ")

    # One order.

    def _add(self, ref: int, key: Key, qty: int) -> None:
        side, price = key
        self._say(
            b"A",
            struct.pack(">Q", ref)
            + side.encode()
            + struct.pack(">I", qty)
            + self._symbol
            + struct.pack(">I", price),
        )
        prices, rank = self._prices[side], price if side == "B" else -price
        at = bisect.bisect_left(prices, rank)
        if at == len(prices) or prices[at] != rank:
            prices.insert(at, rank)
        if ref < NOBODY:
            self._orders[ref] = key, qty
            self._named.setdefault(key, set()).add(ref)

    def _delete(self, ref: int) -> int:
        self._say(b"D", struct.pack(">Q", ref))
        key, qty = self._orders.pop(ref)
        self._named[key].discard(ref)
        return qty

    def _shrink(self, ref: int, qty: int) -> None:
        key, had = self._orders[ref]
        if had == qty:
            del self._orders[ref]
            self._named[key].discard(ref)
        else:
            self._orders[ref] = key, had - qty

    # Quantity of nobody's.

    def _set_unnamed(self, key: Key, qty: int) -> None:
        ref, had = self._unnamed.get(key, (0, 0))
        if qty == had:
            return
        if had:
            self._say(b"D", struct.pack(">Q", ref))
            del self._unnamed[key]
        if qty:
            self._next += 1
            self._add(self._next, key, qty)
            self._unnamed[key] = self._next, qty

    def _set_total(self, key: Key, qty: int) -> None:
        """Of a level that was out of sight: nobody's quantity gives, then orders that must have gone."""
        named = sum(self._orders[ref][1] for ref in self._named.get(key, ()))
        for ref in sorted(self._named.get(key, ())):
            if named <= qty:
                break
            named -= self._delete(ref)
        self._set_unnamed(key, qty - named)

    def _reveal(self, shown: dict[Key, int], key: Key, change: int) -> None:
        """Puts right what this row shows and the one before did not, so that the row's message ends there."""
        for level, qty in shown.items():
            if level not in self._shown:
                self._set_total(level, qty - (change if level == key else 0))
        for side, sign in (("B", 1), ("S", -1)):
            deepest = min((sign * price for of, price in shown if of == side), default=None)
            prices = self._prices[side]
            # From the best price to the deepest that shows; where nothing shows, all of the side.
            for rank in reversed(
                prices[bisect.bisect_right(prices, deepest) if deepest is not None else 0 :]
            ):
                level = side, sign * rank
                if level in shown or level in self._shown or level == key:
                    continue
                self._set_total(level, 0)
                prices.remove(rank)

    def _name(self, ref: int, key: Key, size: int, *, whole: bool) -> None:
        """Makes the order stand at the level with this quantity, or at least it; the level keeps its sum."""
        if ref in self._orders and self._orders[ref][0] != key:
            old = self._orders[ref][0]
            qty = self._delete(ref)
            self._set_unnamed(old, self._unnamed.get(old, (0, 0))[1] + qty)
        had = self._orders[ref][1] if ref in self._orders else 0
        if had == size or (had > size and not whole):
            return
        spare = self._unnamed.get(key, (0, 0))[1]
        if had:
            spare += self._delete(ref)
        for other in sorted(self._named.get(key, ())):
            if spare >= size:
                break
            spare += self._delete(other)
        if spare < size:
            raise LobsterError(f"order {ref}: {size} of {spare} at {key}")
        self._set_unnamed(key, spare - size)
        self._add(ref, key, size)

    def _act(self, kind: int, ref: int, size: int, key: Key) -> None:
        if kind == 1:
            if ref in self._orders:
                raise LobsterError(f"order {ref} is added twice")
            self._add(ref, key, size)
        elif kind in (2, 4):
            self._name(ref, key, size, whole=False)
            self._shrink(ref, size)
            if kind == 2:
                self._say(b"X", struct.pack(">QI", ref, size))
            else:
                self._match += 1
                self._say(b"E", struct.pack(">QIQ", ref, size, self._match))
        elif kind == 3:
            self._name(ref, key, size, whole=True)
            self._delete(ref)
        elif kind == 5:
            self._match += 1
            body = struct.pack(">Q", 0) + b"B" + struct.pack(">I", size) + self._symbol
            self._say(b"P", body + struct.pack(">IQ", key[1], self._match))
        elif kind == 7:
            self._state({-1: "H", 0: "Q", 1: "T"}[key[1]])
        else:
            raise LobsterError(f"a message of type {kind}")


def _levels(row: Sequence[int]) -> dict[Key, int]:
    levels: dict[Key, int] = {}
    for at in range(0, len(row), 4):
        for side, price, qty in (("S", row[at], row[at + 1]), ("B", row[at + 2], row[at + 3])):
            if abs(price) != _EMPTY and qty:
                levels[side, price] = qty
    return levels


def time_ns(text: str) -> int:
    """Seconds after midnight as nanoseconds, digit by digit."""
    whole, _, fraction = text.partition(".")
    return int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])


def encode(
    symbol: str, messages: Iterable[Sequence[str]], rows: Iterable[Sequence[int]]
) -> Iterator[list[bytes]]:
    """For each LOBSTER row its messages, the last of a list being its own. The first list opens the day."""
    encoder = Encoder(symbol)
    for i, (fields, row) in enumerate(zip(messages, rows, strict=True)):
        ts_ns = time_ns(fields[0])
        if i == 0:
            yield encoder.begin(ts_ns)
        kind, ref, size, price, side = (int(text) for text in fields[1:6])
        try:
            yield encoder.encode(ts_ns, kind, ref, size, price, side, row)
        except LobsterError as error:
            raise LobsterError(f"row {i + 1}: {error}") from None


def read(path: Path) -> tuple[str, list[list[str]], list[list[int]]]:
    """Ticker, messages and book rows of a LOBSTER zip."""
    with zipfile.ZipFile(path) as archive:
        found = {}
        for part in ("message", "orderbook"):
            names = [name for name in archive.namelist() if f"_{part}_" in name and name.endswith(".csv")]
            if len(names) != 1:
                raise LobsterError(f"{path}: expected one file *_{part}_*.csv, found {len(names)}")
            found[part] = io.StringIO(archive.read(names[0]).decode())
            symbol = Path(names[0]).name.split("_")[0]
    messages = list(csv.reader(found["message"]))
    rows = [[int(text) for text in row] for row in csv.reader(found["orderbook"])]
    if len(messages) != len(rows):
        raise LobsterError(f"{path}: {len(messages)} messages and {len(rows)} book rows")
    return symbol, messages, rows


def framed(messages: Iterable[bytes]) -> bytes:
    return b"".join(struct.pack(">H", len(message)) + message for message in messages)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("lobster", type=Path, help="LOBSTER's zip")
    parser.add_argument("out", type=Path, help="the day file to write; name the day in it")
    options = parser.parse_args()
    if options.out.exists() and options.lobster.exists() and options.out.samefile(options.lobster):
        sys.exit(f"lobster_to_itch: {options.out}: expected a file of its own, found the zip that is read")
    try:
        symbol, messages, rows = read(options.lobster)
        written = 0
        with options.out.open("wb") as file:
            for group in encode(symbol, messages, rows):
                file.write(framed(group))
                written += len(group)
    except (OSError, zipfile.BadZipFile, LobsterError) as error:
        sys.exit(f"lobster_to_itch: {error}")
    # What a replay of the file counts, too: the orders of nobody's are messages as all others.
    print(f"{symbol}: {len(messages):,} rows as {written:,} messages to {options.out}")


if __name__ == "__main__":
    main()
