"""A small capture of a spot day, line by line, for tests that write it in other ways or break it."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

START = 1_723_161_253_937_085_768
STEP = 250_000_000
EVENTS = 20

Line = tuple[int, dict[str, Any]]


def diff(number: int, *, symbol: str = "BTCUSDT", **changes: Any) -> dict[str, Any]:
    """The `number`th: its ids are 10 * number + 1 to 10 * number + 10. The best bid alternates."""
    message = {
        "e": "depthUpdate",
        "E": (START + number * STEP) // 1_000_000,
        "s": symbol,
        "U": 10 * number + 1,
        "u": 10 * number + 10,
        "b": [["100.50", "2.0" if number % 2 else "0.0"]],
        "a": [["102.00", f"{number + 1}.5"]],
    }
    return {"stream": f"{symbol.lower()}@depth@100ms", "data": {**message, **changes}}


def trade(number: int) -> dict[str, Any]:
    message = {
        "e": "trade",
        "E": 1_723_161_254_000,
        "s": "BTCUSDT",
        "t": number,
        "p": "101.00",
        "q": "1.0",
        "m": True,
    }
    return {"stream": "btcusdt@trade", "data": message}


SNAPSHOT = {"lastUpdateId": 15, "bids": [["100.00", "1.0"]], "asks": [["102.00", "1.0"], ["103.00", "1.0"]]}


def lines(*, snapshot: bool = True) -> list[Line]:
    """Diffs, a snapshot behind the second, and now and then a trade."""
    out: list[Line] = []
    for number in range(EVENTS):
        at = START + number * STEP
        out.append((at, diff(number)))
        if number == 1 and snapshot:
            out.append((at + 1000, SNAPSHOT))
        if number % 3 == 0:
            out.append((at + 2000, trade(number // 3 + 1)))
    return out


def text_of(
    parts: list[Line], stamp: Callable[[int], str] = str, write: Callable[[Any], str] | None = None
) -> bytes:
    write = write or (lambda message: json.dumps(message, separators=(",", ":")))
    return "".join(f"{stamp(at)} {write(message)}\n" for at, message in parts).encode()


def tarred(*texts: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number, text in enumerate(texts):
            entry = tarfile.TarInfo(f"day/{number}.log")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    return out.getvalue()


def zipped(*texts: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, text in enumerate(texts):
            archive.writestr(f"day/{number}.log", text)
    return out.getvalue()
