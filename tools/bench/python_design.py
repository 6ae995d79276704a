"""The usual design in Python, as a competent user writes it: the peer of the comparison.

asyncio, on its own loop or on uvloop, with `websockets` and `json`; the book in two dicts; features in
plain Python and NumPy, windows in NumPy rings; rows through a `multiprocessing.Queue` to a worker process
that owns the ONNX Runtime session, so that the model never holds up the feed. A signal exists when the
worker has its score.

It follows the venue's rules (buffer, snapshot, bridge, sequence) and computes the features of
`setting.ROWS` in their order.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import math
import multiprocessing
import time
import urllib.request
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
import onnxruntime
import uvloop
import websockets
from setting import ROWS, SCORE_WINDOW_NS, SYMBOL, WINDOW_NS

_LEVELS = 10


class Ring:
    """Timed samples of the last `window_ns`, contiguous: each is written twice, half a buffer apart."""

    def __init__(self, window_ns: int, capacity: int = 1 << 15) -> None:
        self.window_ns = window_ns
        self._capacity = capacity
        self._times = np.zeros(2 * capacity, dtype=np.int64)
        self._values = np.zeros(2 * capacity)
        self._begin = self._end = 0

    def push(self, ts: int, value: float) -> None:
        at = self._end % self._capacity
        self._times[at] = self._times[at + self._capacity] = ts
        self._values[at] = self._values[at + self._capacity] = value
        self._end += 1
        if self._end - self._begin > self._capacity:
            self._begin += 1
        oldest = ts - self.window_ns
        while self._times[self._begin % self._capacity] <= oldest:
            self._begin += 1

    @property
    def values(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        begin = self._begin % self._capacity
        return self._values[begin : begin + self._end - self._begin]


class Features:
    """From book to row."""

    def __init__(self) -> None:
        self._ofi = Ring(WINDOW_NS)
        self._ofi_sums = Ring(SCORE_WINDOW_NS)
        self._mids = Ring(WINDOW_NS)
        self._last: tuple[list[tuple[float, float]], list[tuple[float, float]]] | None = None
        self._before = 0.0  # The mid that has just left its window.
        self._started = 0

    def update(
        self, ts: int, bids: list[tuple[float, float]], asks: list[tuple[float, float]]
    ) -> np.ndarray[Any, np.dtype[np.float32]] | None:
        bid, bid_qty = bids[0]
        ask, ask_qty = asks[0]
        mid = (bid + ask) / 2
        if self._last is None:
            self._last, self._started, self._before = (bids, asks), ts, mid
            return None

        flow = 0.0
        for (price, qty), (old_price, old_qty) in zip(bids[:5], self._last[0][:5], strict=False):
            flow += (qty if price >= old_price else 0.0) - (old_qty if price <= old_price else 0.0)
        for (price, qty), (old_price, old_qty) in zip(asks[:5], self._last[1][:5], strict=False):
            flow += (old_qty if price >= old_price else 0.0) - (qty if price <= old_price else 0.0)
        self._last = bids, asks
        self._ofi.push(ts, flow)
        ofi = float(self._ofi.values.sum())

        first = self._mids.values[0] if len(self._mids.values) else mid
        self._mids.push(ts, mid)
        if self._mids.values[0] != first:
            self._before = first
        if ts - self._started < WINDOW_NS:
            return None
        self._ofi_sums.push(ts, ofi)
        if ts - self._started < WINDOW_NS + SCORE_WINDOW_NS:
            return None

        sums = self._ofi_sums.values
        deviation = float(sums.std())
        row = np.empty(len(ROWS), dtype=np.float32)
        for i, levels in enumerate((1, 5, 10)):
            bid_sum = sum(level[1] for level in bids[:levels])
            ask_sum = sum(level[1] for level in asks[:levels])
            row[i] = (bid_sum - ask_sum) / (bid_sum + ask_sum)
        row[3] = (ask - bid) / mid * 1e4
        row[4] = ((bid * ask_qty + ask * bid_qty) / (bid_qty + ask_qty) - mid) / mid * 1e4
        row[5] = math.log(mid / self._before)
        row[6] = ofi
        row[7] = (ofi - float(sums.mean())) / deviation if deviation > 0 else 0.0
        return row


class Book:
    def __init__(self) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.last_id = 0

    def load(self, snapshot: dict[str, Any]) -> None:
        self.bids = {float(price): float(qty) for price, qty in snapshot["bids"]}
        self.asks = {float(price): float(qty) for price, qty in snapshot["asks"]}
        self.last_id = snapshot["lastUpdateId"]

    def apply(self, event: dict[str, Any]) -> None:
        for side, changes in ((self.bids, event["b"]), (self.asks, event["a"])):
            for price_text, qty_text in changes:
                price, qty = float(price_text), float(qty_text)
                if qty == 0.0:
                    side.pop(price, None)
                else:
                    side[price] = qty
        self.last_id = event["u"]

    def top(self, levels: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        bids, asks = self.bids, self.asks
        return (
            [(price, bids[price]) for price in heapq.nlargest(levels, bids)],
            [(price, asks[price]) for price in heapq.nsmallest(levels, asks)],
        )


def infer(queue: Queue[Any], ready: Any, model: str, out: str, capacity: int) -> None:
    """The worker process: a row in, a score out."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for _ in range(200):
        session.run(None, {name: np.zeros((1, len(ROWS)), dtype=np.float32)})
    ids = np.zeros(capacity, dtype=np.int64)
    ts_recv = np.zeros(capacity, dtype=np.int64)
    ts_out = np.zeros(capacity, dtype=np.int64)
    rows = np.zeros((capacity, len(ROWS)), dtype=np.float32)
    scores: list[Any] = []
    ready.set()
    count = 0
    while (item := queue.get()) is not None:
        sequence, received, row = item
        scores.append(session.run(None, {name: row[None, :]})[0])
        ts_out[count] = time.time_ns()
        ids[count], ts_recv[count], rows[count] = sequence, received, row
        count += 1
    np.savez(
        out,
        id=ids[:count],
        ts_recv=ts_recv[:count],
        ts_out=ts_out[:count],
        features=rows[:count],
        scores=np.array(scores),
    )


def fetch(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}?symbol={SYMBOL}&limit=1000", timeout=10) as answer:
        snapshot: dict[str, Any] = json.load(answer)
        return snapshot


async def ingest(arguments: argparse.Namespace, queue: Queue[Any]) -> None:
    book, features = Book(), Features()
    spot = arguments.market == "spot"
    stream = f"{SYMBOL.lower()}@depth@{'100ms' if spot else '0ms'}"
    loop = asyncio.get_running_loop()
    async with websockets.connect(arguments.ws_url, compression=None, max_size=None) as socket:
        await socket.send(json.dumps({"method": "SUBSCRIBE", "params": [stream], "id": 1}))
        snapshot = loop.run_in_executor(None, fetch, arguments.rest_url)
        buffered: list[dict[str, Any]] = []
        synced = False
        while book.last_id < arguments.last_id:
            text = await socket.recv()
            ts_recv = time.time_ns()
            message = json.loads(text)
            event = message.get("data")
            if event is None:
                continue
            if not synced:
                buffered.append(event)
                if not snapshot.done():
                    continue
                book.load(snapshot.result())
                pending = [
                    old for old in buffered if (old["u"] > book.last_id if spot else old["u"] >= book.last_id)
                ]
                if pending and not pending[0]["U"] <= book.last_id + 1 <= pending[0]["u"] + 1:
                    raise RuntimeError("the snapshot does not fit the buffered events")
                for old in pending:
                    book.apply(old)
                synced = True
                continue
            if event["U"] != book.last_id + 1 if spot else event["pu"] != book.last_id:
                raise RuntimeError(f"gap after {book.last_id}")
            book.apply(event)
            row = features.update(ts_recv, *book.top(_LEVELS))
            if row is not None:
                queue.put((event["u"], ts_recv, row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ws-url", required=True)
    parser.add_argument("--rest-url", required=True)
    parser.add_argument("--market", choices=["spot", "usdm"], required=True)
    parser.add_argument("--last-id", type=int, required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    arguments = parser.parse_args()

    context = multiprocessing.get_context("spawn")
    queue: Queue[Any] = context.Queue()
    ready = context.Event()
    worker = context.Process(
        target=infer, args=(queue, ready, arguments.model, arguments.out, arguments.frames)
    )
    worker.start()
    ready.wait(60)
    run = uvloop.run if arguments.loop == "uvloop" else asyncio.run
    run(ingest(arguments, queue))
    queue.put(None)
    worker.join()


if __name__ == "__main__":
    main()
