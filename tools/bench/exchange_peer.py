"""One package at the work of a file of ITCH, in a process of its own: prints its processor time in seconds
and how much came out, as JSON.

    exchange_peer.py NAME FILE
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

DECODE = "decode"
BOOK = "decode + book"


def itchfeed(path: Path) -> Callable[[], int]:
    from itch.parser import MessageParser

    def work() -> int:
        with path.open("rb") as file:
            return sum(1 for _ in MessageParser().parse_file(file))

    return work


def meatpy(path: Path) -> Callable[[], int]:
    from meatpy.itch50 import ITCH50MessageReader

    def work() -> int:
        with ITCH50MessageReader(path) as reader:
            return sum(1 for _ in reader)

    return work


def itchcpp(path: Path) -> Callable[[], int]:
    from itchcpp.book import BookManager

    data = path.read_bytes()

    def work() -> int:
        books = BookManager()
        books.process_stream(data)
        return int(books.book_count())

    return work


def itch_book(path: Path) -> Callable[[], int]:
    """It has no books without a table made of them: this one has a row for each change of a best price."""
    from itch_book import Feed

    def work() -> int:
        with Feed(str(path), date=dt.date(2024, 1, 2), price_type="fixed") as feed:
            return sum(len(batch.bbo["seq"]) for batch in feed.batches(tables=("bbo",)))

    return work


#: What each does, and with how much of the day.
PEERS: dict[str, tuple[str, Callable[[Path], Callable[[], int]]]] = {
    "itchfeed": (DECODE, itchfeed),
    "meatpy": (DECODE, meatpy),
    "itchcpp": (BOOK, itchcpp),
    "itch-book": (BOOK, itch_book),
}


def main() -> None:
    name, path = sys.argv[1:]
    work = PEERS[name][1](Path(path))
    begin = time.process_time()
    count = work()
    print(json.dumps({"seconds": time.process_time() - begin, "count": count}))


if __name__ == "__main__":
    main()
