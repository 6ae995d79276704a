"""Whatever a slow consumer loses, it hears that a book is no longer valid, and in order."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections import defaultdict
from typing import Any

import pytest
from fake_core import REASONS, STAGES, STATES, make_rows, notice

from tickwire.errors import Error
from tickwire.records import RowLayout, Signal
from tickwire.router.consumers import SignalQueue
from tickwire.sinks.websocket import WebSocketSink, _Client

SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
LIKE = make_rows(1, 2)


def as_signal(rows: Any, *, epoch: int = 1) -> Signal:
    rows["epoch"] = epoch
    layout = RowLayout(
        rows.dtype,
        stages=STAGES,
        states=STATES,
        reasons=REASONS,
        instruments=[(symbol, "binance_spot") for symbol in SYMBOLS],
        features=["a", "b"],
    )
    return layout.signals(rows)[0]


def row(instrument: int, number: int, epoch: int = 1) -> Signal:
    return as_signal(make_rows(1, 2, first=number, instrument=instrument), epoch=epoch)


def left(instrument: int, epoch: int = 1, reason: str = "gap") -> Signal:
    return as_signal(notice(instrument, reason=reason, like=LIKE), epoch=epoch)


class Market:
    """Instruments that are valid for some rows, leave with a notice, and come back in a new epoch."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._epoch = [1] * len(SYMBOLS)
        self._row = [0] * len(SYMBOLS)

    def signals(self, count: int) -> list[Signal]:
        return [self._next() for _ in range(count)]

    def _next(self) -> Signal:
        i = self._random.randrange(len(SYMBOLS))
        if self._row[i] and self._random.random() < 0.15:
            gone = left(i, self._epoch[i])
            self._epoch[i] += 1
            self._row[i] = 0
            return gone
        self._row[i] += 1
        return row(i, self._row[i], self._epoch[i])


def test_the_last_thing_heard_of_a_book_that_left_is_the_notice() -> None:
    seed = time.time_ns() % 2**32
    print("seed", seed)
    chance = random.Random(seed)
    for trial in range(60):
        limit = chance.randint(1, 12)
        queue = SignalQueue("q", limit)
        market = Market(chance.randrange(2**32))
        offered: dict[str, list[Signal]] = defaultdict(list)
        heard: dict[str, list[Signal]] = defaultdict(list)
        for _ in range(40):
            batch = market.signals(chance.randint(0, 15))
            for signal in batch:
                offered[signal.instrument].append(signal)
            queue.offer(batch)
            assert len(queue) <= limit + len(SYMBOLS)
            for signal in queue.take(chance.choice([0, 0, 1, 3, 100])):
                heard[signal.instrument].append(signal)
        for signal in queue.take(10_000):
            heard[signal.instrument].append(signal)
        assert len(queue) == 0
        total = sum(map(len, offered.values()))
        assert sum(map(len, heard.values())) == total - queue.dropped
        for symbol, history in offered.items():
            told = heard[symbol]
            # In the order in which they came, and no epoch's row before the notice of the epoch before it.
            places = [history.index(signal) for signal in told]
            assert places == sorted(places), (trial, symbol)
            for before, after in itertools.pairwise(told):
                assert before.epoch == after.epoch or 0 in (before.row, after.row), (trial, symbol)
            if history[-1].row == 0:
                assert told[-1] == history[-1], (trial, symbol)


def test_notice_waits_beside_a_full_queue_and_a_newer_one_replaces_it() -> None:
    queue = SignalQueue("q", 2)
    first, second, gone, again = row(0, 1), row(1, 1), left(0), left(0, 2, "crossed")
    other = left(1)
    queue.offer([first, second, gone, row(0, 1, 2), other, again, row(0, 1, 3)])
    assert len(queue) == 4
    assert queue.dropped == 3  # Two rows, and the notice that a newer one replaced.
    assert queue.take(1) == [first]
    # The queue is full again with what waited: a row has no room before it.
    queue.offer([row(0, 2, 3)])
    assert queue.take(10) == [second, other, again]
    queue.offer([row(0, 3, 3)])
    assert [signal.row for signal in queue.take(10)] == [3]


def test_queue_without_room_is_refused() -> None:
    with pytest.raises(Error, match="at least one signal, found 0"):
        SignalQueue("q", 0)


async def test_websocket_client_that_is_slow_hears_the_notice() -> None:
    class Socket:
        def __init__(self) -> None:
            self.sent: list[dict[str, Any]] = []

        async def send_str(self, text: str) -> None:
            self.sent.append(json.loads(text))
            if len(self.sent) == 3:
                raise ConnectionResetError

    socket = Socket()
    client = _Client(socket, 2, "peer")  # type: ignore[arg-type]
    sink = WebSocketSink()
    sink._clients.add(client)
    await sink.write([row(0, number) for number in (1, 2, 3)])
    await sink.write([left(0, reason="crossed"), row(0, 1, 2)])
    with pytest.raises(ConnectionResetError):
        await client.run()
    assert [(data["row"], data["reason"]) for data in socket.sent] == [
        (1, "none"),
        (2, "none"),
        (0, "crossed"),
    ]
    assert (client.dropped, sink.client_dropped) == (2, 2)
