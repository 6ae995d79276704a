"""A market with a random book: seeded, so that the same seed makes the same messages again.

An instrument is a random walk of the mid in ticks with a ladder of levels around it. An event is a
depth diff or a trade; a diff that moved the best prices or quantities is followed by a bookTicker,
and a trade by its aggTrade. Quiet stretches and bursts alternate, as in a real market, because gaps
between events are exponential. What the seed does not decide is the clock: `E` and `T` come from the
clock that the caller hands in.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from tickwire.sim.book import TruthBook
from tickwire.sim.market import Diff, Market, Message, rules_of

__all__ = ["SyntheticMarket", "write_capture"]

# Base asset, mid price in ticks of the spot market, decimals of a tick.
_ASSETS = (
    ("BTC", 6_180_000, 2),
    ("ETH", 265_000, 2),
    ("SOL", 15_500, 2),
    ("BNB", 52_000, 2),
    ("XRP", 6_100, 4),
    ("DOGE", 10_500, 5),
    ("ADA", 3_450, 4),
    ("AVAX", 22_800, 3),
    ("LINK", 10_600, 3),
    ("LTC", 6_240, 2),
)
_DECIMALS = {"spot": (8, 8), "usdm": (2, 3), "coinm": (1, 0)}
_TRADE_SHARE = 0.25
_LEVELS = 120
_DEFAULT_START_MS = 1_700_000_000_000


class _Instrument:
    """The book and the ids of one instrument, in ticks and lots; every random choice is its own."""

    def __init__(self, market: str, index: int, seed: int) -> None:
        base, mid, tick_decimals = _ASSETS[index % len(_ASSETS)]
        if market != "spot" and base == "BTC":
            mid, tick_decimals = mid // 10, tick_decimals - 1  # The futures' tick is 0.1.
        if index >= len(_ASSETS):
            base += str(index // len(_ASSETS) + 1)
        self.market = market
        self.symbol = f"{base}USD_PERP" if market == "coinm" else f"{base}USDT"
        self.pair = f"{base}USD"
        self.lower = self.symbol.lower()
        self.random = random.Random(f"tickwire/{market}/{self.symbol}/{seed}")
        # A price is printed with the market's decimals, or with what its tick needs.
        self.price_decimals = max(_DECIMALS[market][0], tick_decimals)
        self.qty_decimals = _DECIMALS[market][1]
        self._price_scale = 10 ** (self.price_decimals - tick_decimals)
        self.mid = mid
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.best_bid = self.mid - 1
        self.best_ask = self.mid
        for step in range(_LEVELS):
            self.bids[self.best_bid - step] = self._lots()
            self.asks[self.best_ask + step] = self._lots()
        self.last_id = 1_000_000_000 + self.random.randrange(1_000_000_000)
        self.trade_id = 10_000_000 + self.random.randrange(10_000_000)
        self.quoted: tuple[int, int, int, int] | None = None
        self.clock_lag_ms = 0
        self._prices: dict[int, str] = {}
        # What every message of a futures market carries beside the spot shape.
        self.pair_field = f'"ps":"{self.pair}",' if market == "coinm" else ""

    def _lots(self) -> int:
        """A quantity in the smallest unit: mostly small, sometimes large, never zero."""
        lots = int(self.random.paretovariate(1.2) * (3 if self.market == "coinm" else 40))
        if self.market == "spot":
            lots *= 1000
        return min(lots, 10_000_000) + self.random.randrange(1, 10)

    def price(self, ticks: int) -> str:
        text = self._prices.get(ticks)
        if text is None:
            text = _fixed(ticks * self._price_scale, self.price_decimals)
            self._prices[ticks] = text
        return text

    def qty(self, lots: int) -> str:
        return _fixed(lots, self.qty_decimals)

    def snapshot(self) -> dict[str, object]:
        return {
            "lastUpdateId": self.last_id,
            "bids": [[self.price(p), self.qty(q)] for p, q in self.bids.items()],
            "asks": [[self.price(p), self.qty(q)] for p, q in self.asks.items()],
        }

    def change(self) -> tuple[dict[int, int], dict[int, int]]:
        """Moves the book a step and returns what changed, absolute quantities by price, 0 = removed."""
        rand = self.random
        bids: dict[int, int] = {}
        asks: dict[int, int] = {}
        for _ in range(min(1 + int(rand.expovariate(0.25)), 40)):
            # Changes cluster at the best prices.
            depth = min(int(rand.expovariate(0.15)), _LEVELS + 20)
            lots = 0 if rand.random() < 0.3 else self._lots()
            if rand.random() < 0.5:
                bids[self.best_bid - depth] = lots
            else:
                asks[self.best_ask + depth] = lots
        chance = rand.random()
        if chance < 0.12:
            # Drawn back towards the first mid, so that a long run stays at sensible prices.
            up = 0.5 - max(-0.4, min(0.4, 10.0 * (self.best_bid - self.mid) / self.mid))
            ticks = 1 + int(rand.expovariate(0.8))
            self._move(ticks if rand.random() < up else -ticks, bids, asks)
        elif chance < 0.5 and self.best_ask - self.best_bid > 1:
            if chance < 0.31:
                bids[self.best_bid + 1] = self._lots()
            else:
                asks[self.best_ask - 1] = self._lots()
        _merge(self.bids, bids)
        _merge(self.asks, asks)
        self._refill(bids, asks)
        return bids, asks

    def _move(self, ticks: int, bids: dict[int, int], asks: dict[int, int]) -> None:
        """Shifts the mid: the levels it runs over vanish and the other side follows."""
        if ticks > 0:
            taken, given, gone, new = self.asks, asks, self.best_ask, bids
            prices = range(gone, gone + ticks)
        else:
            taken, given, gone, new = self.bids, bids, self.best_bid, asks
            prices = range(gone + ticks + 1, gone + 1)
        for price in prices:
            if price in taken or price in given:
                given[price] = 0
            new[price] = self._lots()

    def _refill(self, bids: dict[int, int], asks: dict[int, int]) -> None:
        """Restores what a book always has: both sides, no cross, about as many levels as at the start."""
        for side, changes, away in ((self.bids, bids, -1), (self.asks, asks, 1)):
            if len(side) < _LEVELS // 2:
                edge = (min(side) if away < 0 else max(side)) if side else self.mid + away
                for step in range(1, _LEVELS // 2 + 1):
                    lots = self._lots()
                    side[edge + away * step] = lots
                    changes[edge + away * step] = lots
            elif len(side) > 2 * _LEVELS:
                for price in sorted(side, reverse=away > 0)[: len(side) - _LEVELS]:
                    del side[price]
                    changes[price] = 0
        self.best_bid = max(self.bids)
        self.best_ask = min(self.asks)

    def top(self) -> tuple[int, int, int, int]:
        bid, ask = self.best_bid, self.best_ask
        return bid, self.bids[bid], ask, self.asks[ask]

    def depth_message(self, due_ns: int, now_ms: int) -> Message:
        bid_changes, ask_changes = self.change()
        bids = [[self.price(p), self.qty(q)] for p, q in sorted(bid_changes.items(), reverse=True)]
        asks = [[self.price(p), self.qty(q)] for p, q in sorted(ask_changes.items())]
        previous = self.last_id
        rand = self.random
        count = len(bids) + len(asks)
        if self.market == "spot":
            first = previous + 1
            self.last_id = previous + count
            head = f'"E":{now_ms},"s":"{self.symbol}","U":{first},"u":{self.last_id}'
        else:
            # The ids of a futures symbol are shared with other symbols: they jump.
            first = previous + rand.randrange(1, 60)
            self.last_id = first + count + rand.randrange(0, 400)
            head = (
                f'"E":{now_ms},"T":{now_ms - 1},"s":"{self.symbol}",{self.pair_field}'
                f'"U":{first},"u":{self.last_id},"pu":{previous}'
            )
        data = f'{{"e":"depthUpdate",{head},"b":{_levels(bids)},"a":{_levels(asks)}}}'
        diff = Diff(first, self.last_id, now_ms, now_ms - 1, bids, asks)
        interval = "100ms" if self.market == "spot" else "0ms"
        return Message(due_ns, self.symbol, f"{self.lower}@depth@{interval}", data.encode(), diff)

    def quote_message(self, due_ns: int, now_ms: int) -> Message | None:
        """The bookTicker after a change of the top; None where the top is as it was."""
        top = self.top()
        if top == self.quoted:
            return None
        self.quoted = top
        bid, bid_lots, ask, ask_lots = top
        prices = (
            f'"b":"{self.price(bid)}","B":"{self.qty(bid_lots)}",'
            f'"a":"{self.price(ask)}","A":"{self.qty(ask_lots)}"'
        )
        if self.market == "spot":
            data = f'{{"u":{self.last_id},"s":"{self.symbol}",{prices}}}'
        elif self.market == "usdm":
            data = (
                f'{{"e":"bookTicker","u":{self.last_id},"s":"{self.symbol}",{prices},'
                f'"T":{now_ms - 1},"E":{now_ms}}}'
            )
        else:
            data = (
                f'{{"u":{self.last_id},"e":"bookTicker","s":"{self.symbol}",{self.pair_field}{prices},'
                f'"T":{now_ms - 1},"E":{now_ms}}}'
            )
        return Message(due_ns, self.symbol, f"{self.lower}@bookTicker", data.encode())

    def trade_messages(self, due_ns: int, now_ms: int) -> Iterator[Message]:
        rand = self.random
        self.trade_id += 1
        # The stamps of trades run a little behind those of the book: a venue's clock steps back.
        event_ms = now_ms - (rand.randrange(1, 6) if rand.random() < 0.1 else 0)
        buyer_is_maker = rand.random() < 0.5
        ticks = self.best_bid if buyer_is_maker else self.best_ask
        price, qty = self.price(ticks), self.qty(self._lots())
        kind = "MARKET"
        if self.market != "spot" and rand.random() < 0.01:
            # Prints that the venue marks as no trade.
            kind = rand.choice(("INSURANCE_FUND", "ADL", "NA"))
            if kind == "NA":
                price, qty = "0", "0"
        maker = "true" if buyer_is_maker else "false"
        if self.market == "spot":
            data = (
                f'{{"e":"trade","E":{event_ms},"s":"{self.symbol}","t":{self.trade_id},"p":"{price}",'
                f'"q":"{qty}","T":{event_ms - 1},"m":{maker},"M":true}}'
            )
        else:
            pair = self.pair_field
            data = (
                f'{{"e":"trade","E":{event_ms},"T":{event_ms - 1},"s":"{self.symbol}",{pair}'
                f'"t":{self.trade_id},"p":"{price}","q":"{qty}","X":"{kind}","m":{maker}}}'
            )
        yield Message(due_ns, self.symbol, f"{self.lower}@trade", data.encode())
        if kind == "MARKET":
            tail = ',"M":true' if self.market == "spot" else ""
            data = (
                f'{{"e":"aggTrade","E":{event_ms},"s":"{self.symbol}","a":{self.trade_id},"p":"{price}",'
                f'"q":"{qty}","f":{self.trade_id},"l":{self.trade_id},"T":{event_ms - 1},"m":{maker}{tail}}}'
            )
            yield Message(due_ns, self.symbol, f"{self.lower}@aggTrade", data.encode())


def _fixed(units: int, decimals: int) -> str:
    if decimals == 0:
        return str(units)
    whole, part = divmod(units, 10**decimals)
    return f"{whole}.{part:0{decimals}d}"


def _levels(levels: list[list[str]]) -> str:
    return "[" + ",".join([f'["{price}","{qty}"]' for price, qty in levels]) + "]"


def _merge(side: dict[int, int], changes: dict[int, int]) -> None:
    for price, lots in changes.items():
        if lots:
            side[price] = lots
        else:
            side.pop(price, None)


class SyntheticMarket(Market):
    """`rate` counts depth diffs and trades a second, over all instruments; quotes come on top.

    `clock_ms` gives the venue's clock for a moment of play (ns from its start). The default runs from
    a fixed date, for captures; a `Venue` puts its own wall clock there.
    """

    def __init__(
        self,
        market: str,
        *,
        instruments: int = 1,
        rate: float = 2000.0,
        seed: int = 1,
        seconds: float = math.inf,
        events: int | None = None,
    ) -> None:
        if instruments < 1:
            raise ValueError(f"instruments: expected a positive number, found {instruments}")
        if not rate > 0:
            raise ValueError(f"rate: expected a positive number, found {rate}")
        self.rules = rules_of(market)
        self.seed = seed
        self._rate = rate
        self._seconds = seconds
        self._events = events
        self._instruments = [_Instrument(market, index, seed) for index in range(instruments)]
        self.instruments = tuple(instrument.symbol for instrument in self._instruments)
        self.clock_ms: Callable[[int], int] = lambda due_ns: _DEFAULT_START_MS + due_ns // 1_000_000
        self.books: dict[str, TruthBook] = {}
        for instrument in self._instruments:
            book = TruthBook(market, instrument.symbol)
            book.load(instrument.snapshot())
            self.books[instrument.symbol] = book

    def messages(self) -> Iterator[Message]:
        """The stream, from where the last call left the book: meant to be called once."""
        rand = random.Random(f"tickwire/{self.rules.name}/{self.seed}/schedule")
        due_ns, count = 0, 0
        end_ns = self._seconds * 1e9
        while self._events is None or count < self._events:
            due_ns += int(rand.expovariate(self._rate) * 1e9)
            if due_ns > end_ns:
                return
            count += 1
            instrument = rand.choice(self._instruments)
            is_trade = rand.random() < _TRADE_SHARE
            now_ms = self.clock_ms(due_ns)
            if is_trade:
                yield from instrument.trade_messages(due_ns, now_ms)
            else:
                yield instrument.depth_message(due_ns, now_ms)
                quote = instrument.quote_message(due_ns, now_ms)
                if quote is not None:
                    yield quote


def write_capture(
    market: Market,
    file: IO[bytes],
    *,
    start_ns: int = _DEFAULT_START_MS * 1_000_000,
    kinds: Sequence[str] = ("depth", "trade", "bookTicker"),
    diffs_before_snapshot: int = 5,
) -> int:
    """Writes a market as a capture, as a recorder on one connection would; the number of messages.

    The snapshot of each instrument stands behind its first few diffs, so that the start is the one
    that a live client sees: buffer, snapshot, bridge. The snapshot holds the first half of these
    diffs already. Receive stamps run a millisecond behind the venue's.
    """
    wanted = {f"@{kind}" for kind in kinds}
    seen = dict.fromkeys(market.instruments, 0)
    held: dict[str, bytes] = {}
    written = 0
    for message in market.messages():
        ts_recv = start_ns + 1_000_000 + message.due_ns
        if message.diff is not None and seen[message.symbol] < diffs_before_snapshot:
            seen[message.symbol] += 1
            book = market.books[message.symbol]
            if seen[message.symbol] <= (diffs_before_snapshot + 1) // 2:
                book.apply(message.diff)
                held[message.symbol] = book.snapshot(market.rules.max_depth)
        if "@" + message.stream.split("@")[1] in wanted:
            written += 1
            file.write(b'%d {"stream":"%s","data":%s}\n' % (ts_recv, message.stream.encode(), message.data))
        if message.symbol in held and seen[message.symbol] == diffs_before_snapshot:
            body = held.pop(message.symbol)
            line = b'{"tickwire":"snapshot","conn":0,"instrument":"%s","limit":%d,"body":%s}'
            own = line % (message.symbol.encode(), market.rules.max_depth, body)
            file.write(b"%d %s\n" % (ts_recv, own))
    return written
