"""Writes the inputs that the fuzz targets begin with: one of each thing that a format has.

    python tests/fuzz/make_corpus.py

Needs the zstd command. An input that a fuzzer found is added to the folder by hand, under the name of
the fault.
"""

import bz2
import gzip
import io
import json
import lzma
import struct
import subprocess
import zipfile
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus"


def write(target: str, inputs: dict[str, bytes]) -> None:
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in inputs.items():
        (folder / name).write_bytes(data)


def frame(first: int, payload: bytes, length: int | None = None) -> bytes:
    """As a server sends it; `length` is claimed where it is not the payload's."""
    size = len(payload) if length is None else length
    if size < 126:
        return struct.pack(">BB", first, size) + payload
    if size < 65536:
        return struct.pack(">BBH", first, 126, size) + payload
    return struct.pack(">BBQ", first, 127, size) + payload


def itch() -> dict[str, bytes]:
    """Length-prefixed messages of ITCH 5.0. Instruments: AAPL, MSFT; memory for 64 orders."""
    sizes = (12, 39, 25, 20, 26, 35, 12, 28, 35, 21, 36, 40, 31, 36, 23, 19, 35, 44, 40, 19, 50, 20, 48)
    lengths = dict(zip("SRHYLVWKJhAFECXDUPQBINO", sizes, strict=True))

    def message(kind: str, body: bytes, locate: int = 13) -> bytes:
        text = (kind.encode() + struct.pack(">HHHI", locate, 0, 7, 1) + body).ljust(lengths[kind], b"\0")
        return struct.pack(">H", len(text)) + text

    def add(ref: int, side: bytes, qty: int, price: int, locate: int = 13) -> bytes:
        return message("A", struct.pack(">QcI8sI", ref, side, qty, b"AAPL    ", price), locate)

    opened = b"".join(
        message("R", stock, locate) + message("H", stock + b"T", locate)
        for locate, stock in ((13, b"AAPL    "), (14, b"MSFT    "))
    )
    book = opened + add(1, b"B", 100, 1000000) + add(2, b"S", 200, 1000100) + add(3, b"B", 50, 999900)
    every = b"".join(message(kind, b"AAPL    B") for kind in lengths)
    return {
        "every_type": opened + every,
        "every_length": b"".join(struct.pack(">H", n) + b"A" + bytes(n - 1) for n in range(1, 60)),
        "book": book,
        "executions": book
        + message("E", struct.pack(">QIQ", 1, 40, 1))
        + message("C", struct.pack(">QIQcI", 2, 10, 2, b"Y", 1000050))
        + message("C", struct.pack(">QIQcI", 2, 10, 3, b"N", 1000050))
        + message("E", struct.pack(">QIQ", 1, 60, 4)),
        "cancels": book + message("X", struct.pack(">QI", 2, 150)) + message("D", struct.pack(">Q", 3)),
        "replace": book + message("U", struct.pack(">QQII", 1, 9, 10, 999800)),
        "replace_by_known": book + message("U", struct.pack(">QQII", 1, 2, 10, 999800)),
        "too_much": book + message("E", struct.pack(">QIQ", 1, 101, 1)),
        "unknown_order": book + message("D", struct.pack(">Q", 99)),
        "other_book": book + message("D", struct.pack(">Q", 1), 14),
        "crossed": book + add(4, b"S", 10, 1000000) + message("D", struct.pack(">Q", 1)),
        "full": opened + b"".join(add(i, b"B", 1, 100 * i) for i in range(1, 70)),
        "far_refs": opened + b"".join(add(i << 60, b"S", 1, 5) for i in range(16)),
        "halts": book + message("H", b"AAPL    H") + add(8, b"B", 1, 5) + message("h", b"AAPL    QH"),
        "events": book + b"".join(message("S", bytes([code]), 0) for code in b"OSQMEC"),
        "renamed": book + message("R", b"MSFT    ") + add(7, b"B", 1, 5) + message("R", b"GOOG    "),
        "unknown_type": opened + b"\0\3Zzz" + b"\0\0" + book,
        "cut": book[:-9],
    }


def websocket_frame() -> dict[str, bytes]:
    """One byte that chooses the pieces, then frames. Limits of the target: 4096 a frame, 8192 a message."""
    euro = "€".encode()
    streams = {
        "text": frame(0x81, "häß €".encode()),
        "binary": frame(0x82, bytes(range(200))),
        "empty": frame(0x81, b"") + frame(0x82, b""),
        "largest_frame": frame(0x82, b"x" * 4096),
        "beyond_the_frame": frame(0x82, b"", 4097),
        "eight_byte_length": frame(0x82, b"", 1 << 40),
        "long_form_of_short": b"\x82\x7e\x00\x05hello",
        "fragments": frame(0x01, b"one ") + frame(0x00, b"two ") + frame(0x80, b"three"),
        "fragmented_character": frame(0x01, euro[:1]) + frame(0x00, euro[1:2]) + frame(0x80, euro[2:]),
        "ping_between_fragments": frame(0x01, b"a") + frame(0x89, b"p") + frame(0x80, b"b"),
        "beyond_the_message": frame(0x02, b"x" * 4096) + frame(0x00, b"y" * 4096) + frame(0x80, b"z"),
        "ping_pong": frame(0x89, b"12345678") + frame(0x8A, b"12345678") + frame(0x8A, b""),
        "long_ping": frame(0x89, b"x" * 126),
        "close_without_code": frame(0x88, b""),
        "close_with_reason": frame(0x88, struct.pack(">H", 1001) + "bis später".encode()),
        "close_half_a_code": frame(0x88, b"\x03"),
        "close_bad_code": frame(0x88, struct.pack(">H", 1005)),
        "close_bad_reason": frame(0x88, struct.pack(">H", 1000) + b"\xff"),
        "bad_text": frame(0x81, b"a\xc3("),
        "surrogate": frame(0x81, b"\xed\xa0\x80"),
        "overlong": frame(0x81, b"\xc0\xaf") + frame(0x81, b"\xf4\x90\x80\x80"),
        "cut_character": frame(0x81, euro[:2]),
        "masked": b"\x81\x81\x00\x00\x00\x00a",
        "reserved_bit": frame(0xC1, b"a"),
        "unknown_opcode": frame(0x83, b"a") + frame(0x8B, b"a"),
        "continuation_of_nothing": frame(0x80, b"a"),
        "text_inside_text": frame(0x01, b"a") + frame(0x81, b"b"),
        "several": frame(0x81, b"a") + frame(0x89, b"b") + frame(0x82, b"c" * 300) + frame(0x88, b""),
    }
    return {name: bytes([7]) + data for name, data in streams.items()}


def binance_decoder() -> dict[str, bytes]:
    """One byte for market and padding, then a message or a snapshot. Instruments: BTCUSDT, ETHUSDT."""
    diff = {
        "e": "depthUpdate",
        "E": 1700000000123,
        "s": "BTCUSDT",
        "U": 100,
        "u": 105,
        "b": [["61837.63000000", "0.50000000"], ["61837.62", "0"]],
        "a": [["61837.64", "1.2"]],
    }
    futures = diff | {"T": 1700000000120, "pu": 99}
    trade = {
        "e": "trade",
        "E": 1700000000123,
        "s": "BTCUSDT",
        "t": 12345,
        "p": "61837.63",
        "q": "0.5",
        "T": 1700000000122,
        "m": True,
        "M": True,
    }
    aggregate = {
        "e": "aggTrade",
        "E": 1700000000123,
        "s": "ETHUSDT",
        "a": 5,
        "p": "3000",
        "q": "1.5",
        "f": 100,
        "l": 102,
        "T": 1700000000122,
        "m": False,
    }
    quote = {"u": 400900217, "s": "BTCUSDT", "b": "25.35", "B": "31.21", "a": "25.36", "A": "40.66"}
    snapshot = {
        "lastUpdateId": 160,
        "bids": [["61837.63", "0.5"]],
        "asks": [["61837.64", "1.2"], ["61838", "2"]],
    }
    messages: dict[str, object] = {
        "diff": diff,
        "diff_futures": futures,
        "diff_combined": {"stream": "btcusdt@depth@100ms", "data": diff},
        "diff_other_order": dict(reversed(futures.items())),
        "diff_empty": diff | {"b": [], "a": []},
        "diff_microseconds": diff | {"E": 1700000000123456},
        "diff_too_many_levels": diff | {"b": [[str(i), "1"] for i in range(1, 60)]},
        "diff_too_many_digits": diff | {"b": [["61837.631", "1"]]},
        "diff_huge_price": diff | {"b": [["99999999999999999999", "1"]]},
        "diff_unknown_symbol": diff | {"s": "DOGEUSDT"},
        "diff_negative": diff | {"U": -1, "a": [["-1", "1"]]},
        "diff_nested": diff | {"x": {"b": [["1", {"u": [1, '\\"', None, 1e5]}]]}},
        "trade": trade,
        "trade_combined": {"stream": "btcusdt@trade", "data": trade},
        "trade_not_at_market": trade | {"X": "INSURANCE_FUND"},
        "trade_none": trade | {"X": "NA", "p": "0", "q": "0"},
        "aggregate_trade": aggregate,
        "quote": quote,
        "snapshot": snapshot,
        "snapshot_futures": snapshot | {"E": 1700000000123, "T": 1700000000120, "symbol": "ETHUSDT"},
        "snapshot_empty": {"lastUpdateId": 1, "bids": [], "asks": []},
        "subscribed": {"result": None, "id": 1},
        "refused": {"error": {"code": 2, "msg": "Invalid request"}, "id": 1},
        "rest_error": {"code": -1121, "msg": "Invalid symbol."},
        "shutdown": {"e": "serverShutdown", "E": 1700000000123},
    }
    texts = {name: json.dumps(message, separators=(",", ":")) for name, message in messages.items()}
    texts["diff_spaces"] = json.dumps(diff, indent=1)
    texts["diff_cut"] = texts["diff"][:-20]
    texts["two_documents"] = texts["trade"] * 2
    texts["not_json"] = "<html>451</html>"
    texts["escaped_symbol"] = texts["diff"].replace("BTCUSDT", "BTC\\u0055SDT")
    texts["number_for_text"] = texts["trade"].replace('"61837.63"', "61837.63")
    texts["quote_futures"] = json.dumps({"e": "bookTicker", "E": 5} | quote, separators=(",", ":"))
    texts["diff_whole_numbers"] = texts["diff"].replace("61837.62", "61837").replace("0.50000000", "12")
    texts["diff_long_numbers"] = texts["diff"].replace("61837.6", "1234567890.60000000")
    return {name: bytes([i % 12]) + text.encode() for i, (name, text) in enumerate(texts.items())}


def zipped(*texts: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, text in enumerate(texts):
            archive.writestr(zipfile.ZipInfo(f"{i}.log"), text, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def capture_reader() -> dict[str, bytes]:
    """One byte for the size of the blocks, then a file. Limit of the target: 1000 bytes a line."""
    body = '{"lastUpdateId":7,"bids":[],"asks":[]}'
    lines = [
        '1700000000000000000 {"tickwire":"open","conn":0}',
        '1700000000000000001 {"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","p":"1.5"}}',
        f'1700000000000000002 {{"tickwire":"snapshot","conn":0,"instrument":"BTCUSDT","body":{body}}}',
        "1700000000000000003 " + body,
        '1700000000000000004 {"a":[1,{"b":"\\""}]}',
        '1700000000000000005 {"tickwire":"close","conn":0}',
    ]
    text = ("\n".join(lines) + "\n").encode()
    packed = gzip.compress(text, mtime=0)
    # A run that began with what the above recorded; last the same lines as nobody writes them.
    began_warm = (
        b'1700000000000000000 {"tickwire":"warm","conn":0}\n'
        + text
        + b'1700000000000000006 {"tickwire":"cold","conn":0,"instrument":"BTCUSDT"}\n'
        b'1700000000000000007 {"tickwire":"live","conn":0}\n'
        b'8 {"tickwire":"warm"}\n9 {"tickwire":"live","conn":0,"instrument":"A"}\n'
        b'10 {"tickwire":"cold","conn":0}\n'
    )
    zstd = subprocess.run(["zstd", "-q", "-c"], input=text, capture_output=True, check=True).stdout
    files = {
        "plain": text,
        "no_last_newline": text[:-1],
        "cut_in_a_line": text[:-30],
        "carriage_returns": text.replace(b"\n", b"\r\n"),
        "blank_lines": b"\n\n" + text + b"\n",
        "longest_line": b"1 " + b"x" * 998 + b"\n2 {}\n",
        "line_too_long": b"1 " + b"x" * 1500 + b"\n2 {}\n",
        "no_time": b"{}\n 1 {}\nx {}\n3{}\n4 \n5\n",
        "huge_time": b"9223372036854775807 {}\n9223372036854775808 {}\n-1 {}\n",
        "unknown_line_of_ours": b'1 {"tickwire":"other","conn":0}\n2 {"tickwire":"open","conn":x}\n',
        "snapshot_without_body": b'1 {"tickwire":"snapshot","conn":0,"instrument":"A"}\n2 {}\n',
        "zero_bytes": b"1 {\x00}\n\x00\x00\n2 {}\n",
        "gzip": packed,
        "gzip_twice": packed + packed,
        "gzip_cut": packed[: len(packed) // 2],
        "gzip_then_rubbish": packed + b"rubbish",
        "gzip_header_only": packed[:10],
        "zstd": zstd,
        "zstd_twice": zstd + zstd,
        "zstd_cut": zstd[:-8],
        "zstd_then_rubbish": zstd + b"rubbish",
        "nothing": b"",
        "began_warm": began_warm,
        "xz": lzma.compress(text),
        "xz_cut": lzma.compress(text)[:-20],
        "bzip2": bz2.compress(text) + bz2.compress(text),
        "zip": zipped(text),
        "zip_cut": zipped(text)[:-30],
        "zip_of_two": zipped(text, text),
        "microseconds": text.replace(b"170000000000000000", b"170000000000000"),
        "iso_times": b"2024-08-08T23:54:13.937Z {}\n2024-08-08 23:54:13,937+02:00 {}\n",
        "fractions": b"1723161253.937 {}\n1.723161253937e9 {}\n1723161253 {}\n",
        "units_mixed": b"1723161253937 {}\n1723161253937085 {}\n1723161253938 {}\n",
        "byte_order_mark": b"\xef\xbb\xbf1723161253937085768 {}\r\n",
        "utf_16": "1723161253937085768 {}\n".encode("utf-16"),
        "wrapped_snapshot": b'1700000000000000000 {"stream":"btc\\u0075sdt@depth","data":{"lastUpdateId":7,'
        b'"bids":[],"asks":[]}}\n',
        "escaped_name": b'1 {"tickwire":"snapshot","conn":0,"instrument":"\\u5e01\\/\\ud83d\\ude00",'
        b'"body":{}}\n',
    }
    return {name: bytes([(i * 37) % 256]) + data for i, (name, data) in enumerate(files.items())}


def mold_packet() -> dict[str, bytes]:
    """Datagrams in a row, each behind a byte for line and time and two for its length."""

    def datagram(sequence: int, *messages: bytes, count: int | None = None, session: bytes = b"S") -> bytes:
        blocks = b"".join(struct.pack(">H", len(message)) + message for message in messages)
        header = struct.pack(">10sQH", session.ljust(10), sequence, len(messages) if count is None else count)
        return header + blocks

    def script(*steps: tuple[int, bytes]) -> bytes:
        return b"".join(struct.pack(">BH", control, len(data)) + data for control, data in steps)

    a, b, answer, later, much_later = 0, 1, 2, 0x10, 0xF0
    one, two, three = (datagram(number, b"message %d" % number) for number in (1, 2, 3))
    return {
        "in_order": script((a, one), (b, one), (a, two), (b, two), (a, datagram(3, b"x", b"", b"yz"))),
        "other_line_fills": script((a, one), (a, three), (b, two), (b, three)),
        "answer_fills": script((a, one), (a, datagram(5, b"x")), (much_later, b""), (answer, two)),
        "partial_answers": script(
            (a, one),
            (a, datagram(6, b"x")),
            (much_later, b""),
            (answer, datagram(2, b"2", b"3")),
            (answer, datagram(4, b"4", b"5")),
        ),
        "overlaps": script((a, one), (a, datagram(4, *[b"x"] * 3)), (b, datagram(2, *[b"y"] * 9))),
        "snapshot": script((a, one), (a, three), *[(much_later, b"")] * 6, (0x03, b""), (a, datagram(4))),
        "heartbeats": script((a, datagram(7)), (later | b, datagram(9)), (much_later, b"")),
        "end": script((a, one), (a, datagram(3, count=0xFFFF)), (b, two)),
        "new_session": script((a, one), (a, three), (a, datagram(1, b"x", session=b"T")), (b, two)),
        "count_too_large": script((a, datagram(1, b"x", count=2))),
        "count_too_small": script((a, datagram(1, b"x", b"y", count=1))),
        "length_beyond": script((a, datagram(1, count=1) + b"\xff\xff")),
        "no_header": script((a, one[:19])),
        "highest_number": script((a, datagram((1 << 64) - 1, b"x")), (a, datagram(1 << 62, b"x"))),
        "far_apart": script((a, one), (a, datagram(1 << 40, b"x")), (b, two), (much_later, b"")),
    }


def soup_packet() -> dict[str, bytes]:
    """One byte that chooses the pieces, then what a server sends."""

    def packet(kind: bytes, payload: bytes = b"") -> bytes:
        return struct.pack(">H", 1 + len(payload)) + kind + payload

    accepted = packet(b"A", b"SESSION001" + b"1".rjust(20))
    streams = {
        "login": accepted,
        "rejected": packet(b"J", b"A"),
        "data": accepted + packet(b"S", b"first") + packet(b"S") + packet(b"S", b"x" * 300),
        "heartbeats": accepted + packet(b"H") * 3,
        "end_of_session": accepted + packet(b"S", b"last") + packet(b"Z"),
        "debug": packet(b"+", b"hello") + accepted,
        "glimpse": accepted + packet(b"S", b"R...") + packet(b"S", b"G" + b"42".ljust(20)),
        "no_type": accepted + b"\x00\x00" + packet(b"H"),
        "largest": packet(b"S", b"y" * 4000) + packet(b"H"),
        "cut": packet(b"S", b"message")[:-2],
        "number_too_large": packet(b"A", b"SESSION001" + b"99999999999999999999"),
        "number_no_digits": packet(b"A", b"SESSION001" + b"12 34".rjust(20)),
    }
    return {name: bytes([i % 9]) + data for i, (name, data) in enumerate(streams.items())}


def glimpse() -> dict[str, bytes]:
    """One byte that chooses the pieces and how the server leaves, then its answer to a login."""

    def packet(kind: bytes, payload: bytes = b"") -> bytes:
        return struct.pack(">H", 1 + len(payload)) + kind + payload

    def login(number: bytes = b"1") -> bytes:
        return packet(b"A", b"MONDAY    " + number.rjust(20))

    def end(number: bytes = b"42") -> bytes:
        return packet(b"S", b"G" + number.ljust(20))

    orders = packet(b"S", b"R...") + packet(b"S") + packet(b"S", b"A" * 35)
    answers = {
        "whole": login() + orders + end(),
        "empty": login() + end(),
        "more_behind_the_end": login() + orders + end() + orders,
        "debug_first": packet(b"+", b"welcome") + login() + packet(b"+", b"aside") + end(),
        "heartbeats": packet(b"H") + login() + packet(b"H") * 3 + orders + packet(b"H") + end(),
        "rejected": packet(b"J", b"A"),
        "rejected_session": packet(b"J", b"S"),
        "rejected_in_silence": packet(b"J"),
        "rejected_after_the_login": login() + packet(b"J", b"A"),
        "message_before_the_login": orders + login(),
        "end_of_session_before_the_login": packet(b"Z"),
        "end_of_session": login() + orders + packet(b"Z"),
        "two_logins": login() + login() + end(),
        "begins_later": login(b"17") + orders + end(),
        "begins_nowhere": login(b"") + end(),
        "login_too_short": packet(b"A", b"MONDAY"),
        "number_too_large": login() + end(b"99999999999999999999"),
        "largest_number": login() + end(b"18446744073709551615"),
        "number_zero": login() + end(b"0"),
        "no_number": login() + packet(b"S", b"G"),
        "no_type": login() + b"\0\0" + end(),
        "unknown": login() + packet(b"?", b"x") + packet(b"U", b"unsequenced") + end(),
        "large": login() + packet(b"S", b"y" * 9000) + end(),
        "cut": (login() + orders + end())[:-3],
        "nothing": b"",
    }
    choices = (0, 1, 7, 63, 128, 240, 250)
    return {name: bytes([choices[i % len(choices)]]) + data for i, (name, data) in enumerate(answers.items())}


def rerequest() -> dict[str, bytes]:
    """Steps of three bytes: see the target."""

    def line(lost: int, count: int) -> bytes:
        return bytes([0, lost, count])

    def answer(offset: int, count: int, wrong: int = 0) -> bytes:
        return bytes([1 | wrong, offset & 255, count])

    def raw(data: bytes) -> bytes:
        padded = data + bytes(-len(data) % 3)
        return bytes([2, len(padded) // 3, 0]) + padded

    def wait(time: int, heartbeat: bool = False) -> bytes:
        return bytes([3, time, heartbeat])

    hole = line(0, 3) + line(5, 2) + wait(11)
    return {
        "nothing_missing": line(0, 3) + line(0, 15) + wait(5, True),
        "answered": hole + answer(0, 5) + line(0, 2),
        "answered_in_parts": hole + answer(0, 2) + answer(0, 2) + answer(0, 1) + line(0, 1),
        "more_than_asked": hole + answer(0, 30) + line(3, 3) + wait(11) + answer(0, 39),
        "before_and_behind": hole + answer(-3, 5) + answer(2, 9) + answer(0, 5),
        "nothing_in_it": hole + answer(0, 0) + wait(21) + answer(0, 0) + wait(21),
        "never": hole + wait(21) * 4 + line(0, 2) + answer(0, 5),
        "of_another_session": hole + answer(0, 5, 4) + answer(0, 5),
        "another_count": hole + answer(0, 5, 8) + answer(0, 5),
        "cut": hole + answer(0, 5, 16) + answer(0, 5),
        "too_long": hole + answer(0, 5, 32) + answer(0, 5),
        "another_number": hole + answer(0, 5, 64) + answer(0, 5, 64) + wait(255) * 9,
        "many_holes": (line(9, 2) * 12 + wait(11)) * 3 + (answer(0, 9) + wait(7)) * 9,
        "largest_hole": line(31, 15) + wait(11) + answer(0, 20) + answer(0, 20),
        "from_a_heartbeat": line(0, 1) + line(9, 0) + wait(1, True) + wait(12) + answer(0, 9),
        "session_ends": hole + raw(b"TODAY     " + bytes([0] * 7 + [9, 255, 255])) + answer(0, 5),
        "raw": hole + raw(b"TODAY     " + struct.pack(">QHH3s", 4, 1, 3, b"abc")) + answer(0, 5),
        "raw_beyond_the_largest": hole + raw(bytes(600)) + answer(0, 5),
        "raw_short": hole + raw(b"TODAY"),
    }


def stat_file() -> dict[str, bytes]:
    """One byte: even, then a file; odd, then what is damaged in a sound one."""

    def label(text: bytes) -> bytes:
        return text.ljust(64, b"\0")

    def file(
        version: int = 2, count: int = 2, kinds: int = 64, stride: int = 256, offset: int = 512
    ) -> bytes:
        records = b"".join(
            (label(b"feed") + label(b"c%d" % i) + struct.pack("<q", 10 + i)).ljust(256, b"\0")
            for i in range(count)
        )
        error_stride = 33024 if version == 2 else 8448
        size = 512 + len(records)
        head = struct.pack("<8sIIQiIQq16x", b"TICKWIRE", version, 512, size, 1, 0, 99, 1700000000 * 10**9)
        head += struct.pack("<QII", offset, stride, count)
        head += struct.pack("<QII", size, 16640, 0) + struct.pack("<QII", size, error_stride, 0)
        head += struct.pack("<III", 2048, 6, kinds)
        head = head.ljust(256, b"\0") + struct.pack("<qq", 1700000001 * 10**9, 0)
        return head.ljust(512, b"\0") + records

    def patch(place: int, data: bytes) -> bytes:
        return struct.pack(">HB", place, len(data)) + data

    cut = struct.pack(">HB", 1000, 0)
    files = {
        "counters": file(),
        "no_records": file(count=0),
        "old_version": file(version=1, kinds=32),
        "newer_version": file(version=3),
        "still_being_made": file(version=0),
        "beyond_its_end": file()[:-8],
        "other_stride": file(stride=128),
        "odd_place": file(offset=513),
        "place_beyond": file(offset=1 << 40),
        "another_file": b"TICKWARE" + file()[8:],
        "header_alone": file()[:512],
        "half_a_header": file()[:200],
    }
    damage = {
        "sound": b"",
        "version": patch(8, b"\1"),
        "cut_behind_the_counters": cut,
        "counts": patch(76, struct.pack("<I", 9)) + patch(92, struct.pack("<I", 2**32 - 1)),
        "labels_without_an_end": patch(512, b"x" * 31) + patch(543, b"\xff" * 31),
        "text_without_an_end": patch(512 + 3 * 256 + 16640 + 256 + 24, struct.pack("<I", 2**32 - 1)),
        "odd_turn": patch(512 + 3 * 256 + 16640 + 256 + 256, b"\1"),
        "newest_of_any_length": patch(512 + 3 * 256 + 16640 + 256 + 264, b"\xff" * 8),
        "bucket_sum": patch(512 + 3 * 256 + 256, b"\xff" * 31),
        "no_name": patch(512, bytes(31)),
        "of_another_process": patch(24, struct.pack("<i", -5)),
    }
    return {name: b"\0" + data for name, data in files.items()} | {
        f"damaged_{name}": b"\1" + data for name, data in damage.items()
    }


def stat_reader() -> dict[str, bytes]:
    """As for stat_file, but that places have three bytes, in the file of tests/data."""
    sound = (CORPUS.parents[1] / "data" / "stat_file_v2.stat").read_bytes()
    *_, logs = (struct.unpack_from("<QII", sound, 64 + 16 * i)[0] for i in range(3))

    def patch(place: int, data: bytes) -> bytes:
        return struct.pack(">BHB", place >> 16, place & 65535, len(data)) + data

    count = struct.pack("<Q", 3)
    damage = {
        "sound": b"",
        "version": patch(8, b"\1"),
        "cut": struct.pack(">BHB", 0, 9000, 0),
        "error": patch(logs + 256, count) + patch(logs + 256 + 24, b"\4\0\0\0") + patch(logs + 288, b"text"),
        "text_without_an_end": patch(logs + 256, count) + patch(logs + 256 + 24, b"\xff" * 4),
        "odd_turn": patch(logs + 256, count) + patch(logs + 512, b"\1"),
        "newest": patch(logs + 256, count) + patch(logs + 512, struct.pack("<QQ4s", 2, 4, b"last")),
        "newest_of_any_length": patch(logs + 256, count) + patch(logs + 520, b"\xff" * 8),
        "labels": patch(512, b"\xff" * 31),
    }
    files = {name: data for name, data in stat_file().items() if not name.startswith("damaged")}
    return files | {f"damaged_{name}": b"\1" + data for name, data in damage.items()}


def control() -> dict[str, bytes]:
    """One byte that chooses the side, 0 the engine's door and 1 the command's, then what it gets."""
    requests = {
        "swap": b'{"command":"swap","files":["m.onnx"],"model":"blend"}\n',
        "swap_without_a_model": b'{"command":"swap","files":["m.onnx"]}\n',
        "swap_of_nobody": b'{"command":"swap","files":["m.onnx"],"model":["blend"]}\n',
        "swap_without_files": b'{"command":"swap","files":[],"model":"a"}\n',
        "swap_of_numbers": b'{"command":"swap","files":[1],"model":"a"}\n',
        "another_command": b'{"command":"stop"}\n',
        "no_command": b"{}\n",
        "no_object": b"[1]\n",
        "half": b'{"command":"swap"',
        "not_utf8": b"\xff\xfe\n",
        "deep": b"[" * 9000 + b"\n",
        "digits": b"1" * 5000 + b"\n",
        "two": b'{"command":"swap","files":[]}\n{"command":"swap"}\n',
        "nothing": b"",
    }
    answers = {
        "ok": b'{"ok":{"model":"a"}}\n',
        "error": b'{"error":"no"}\n',
        "neither": b"{}\n",
        "no_object": b"7\n",
        "ok_of_another_kind": b'{"ok":[1]}\n',
        "deep": b"[" * 9000 + b"\n",
        "half": b'{"ok"',
        "not_utf8": b"\xff\n",
        "nothing": b"",
    }
    return {f"request_{name}": b"\0" + data for name, data in requests.items()} | {
        f"answer_{name}": b"\1" + data for name, data in answers.items()
    }


def configuration() -> dict[str, bytes]:
    """Configuration files."""
    feed = '[[feeds]]\nvenue = "binance_spot"\ninstruments = ["BTCUSDT"]\n'
    rows = '[features]\nrows = ["imbalance(levels=5)", "spread()"]\n'
    itch = '[[feeds]]\nvenue = "nasdaq_itch"\ninstruments = ["AAPL", "MSFT"]\n'
    multicast = (
        '[feeds.multicast]\nlines = ["239.1.1.1:26477", {address = "239.1.1.2:26477", interface = "lo"}]\n'
        'rerequest = "10.1.2.3:17777"\nglimpse = "glimpse.example:18000"\nreorder_window = "1ms"\n'
    )
    files = {
        "minimal": feed + rows,
        "instruments": feed.replace('"BTCUSDT"', '{symbol = "BTCUSDT", price_decimals = 2}, "ETHUSDT"')
        + rows,
        "several_feeds": feed
        + feed.replace("spot", "usdm").replace("]", ']\nname = "f"\nquotes = true\ncore = 1', 3)
        + rows,
        "every": feed + rows + 'every = "100ms"\nclock = "event"\nwindow_rows = 8\n',
        "trigger": feed + rows + 'trigger = "trade"\nbeyond_depth = "accept"\ntrade_gaps = "suspect"\n',
        "windows": feed
        + "[features]\nrows = [\"zscore(ofi(levels=5, window='1s'), window='9s')\", 'microprice_offset()']\n",
        "model": feed + rows + '[model]\npath = "m.onnx"\nworkers = 2\nmax_batch = 8\npolicy = "conflate"\n',
        "models": feed
        + rows
        + '[[models]]\nname = "a"\npath = ["a.onnx", "b.onnx"]\nweights = [3.0, 1.0]\ncores = [2, 3]\n'
        + '[[models]]\npath = "c.onnx"\nshadow = true\nwatch = true\n',
        "processes": feed
        + rows
        + '[engine]\nlayout = "processes"\nidle = "spin"\nstat_path = "s.stat"\nstrict = true\n'
        + '[memory]\nhuge_pages = "off"\nlock = "off"\n[record]\nfsync = "never"\n'
        + '[model]\npath = "m.onnx"\nmax_restarts = 3\nrestart_window = "1m"\nmax_rss_mb = 900\n',
        "sinks": feed
        + rows
        + '[[sinks]]\ntype = "jsonl"\npath = "out.jsonl"\n[[sinks]]\ntype = "websocket"\nport = 0\n'
        + 'origins = ["https://a.example"]\nhosts = ["a.example"]\ntoken_file = "t"\nhost = "0.0.0.0"\n',
        "itch": itch + 'source = "file"\ndate = "2020-01-30"\nmax_orders = 64\n' + rows,
        "multicast": itch + multicast + rows,
        "websocket": feed
        + 'url = "wss://a.example/ws"\nrest_url = "https://a.example/depth"\nca_file = "ca.pem"\n'
        + 'reconnect_min = "1s"\nreconnect_max = "2s"\nstale_after = "5s"\nliveness_timeout = "9s"\n'
        + rows,
        "nothing": "",
        "no_feed": rows,
        "unknown_key": feed + "vanue = 1\n" + rows,
        "bad_duration": feed + 'stale_after = "5 parsecs"\n' + rows,
        "not_toml": "= [",
        "dots": "a" + ".a" * 5000 + " = 1",
        "brackets": "a = " + "[" * 5000,
        "digits": "a = " + "1" * 5000,
        "text": 'a = """\n' + "\\u0041" * 100 + '"""',
    }
    return {name: text.encode() for name, text in files.items()} | {"not_utf8": b"a = '\xff'"}


def pcap() -> dict[str, bytes]:
    """Capture files: pcap in both byte orders and precisions, pcapng with several interfaces."""

    def udp(payload: bytes) -> bytes:
        return struct.pack(">HHHH", 1000, 2000, 8 + len(payload), 0) + payload

    def ipv4(inside: bytes, protocol: int = 17, fragment: int = 0, options: bytes = b"") -> bytes:
        first = 0x45 + len(options) // 4
        size = 20 + len(options) + len(inside)
        head = struct.pack(">BBHHHBBH", first, 0, size, 7, fragment, 16, protocol, 0)
        return head + bytes([10, 0, 0, 1, 239, 1, 2, 3]) + options + inside

    def ipv6(inside: bytes, following: int = 17) -> bytes:
        ends = b"\x20\x01" + bytes(13) + b"\x07" + b"\xff\x05" + bytes(13) + b"\x01"
        return struct.pack(">IHBB", 0x60000000, len(inside), following, 64) + ends + inside

    def ethernet(inside: bytes, kind: int = 0x0800, tags: bytes = b"") -> bytes:
        return b"m" * 12 + tags + struct.pack(">H", kind) + inside

    def classic(*packets: bytes, order: str = "<", magic: int = 0xA1B23C4D, link: int = 1) -> bytes:
        out = struct.pack(order + "IHHIIII", magic, 2, 4, 0, 0, 65535, link)
        for i, packet in enumerate(packets):
            out += struct.pack(order + "IIII", 1700000000 + i, 123456 + i, len(packet), len(packet)) + packet
        return out

    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        return struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))

    def next_generation(*packets: bytes, resolutions: tuple[int, ...] = (9,)) -> bytes:
        out = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        for resolution in resolutions:
            option = struct.pack("<HHBxxxHH", 9, 1, resolution, 0, 0)
            out += block(1, struct.pack("<HHI", 1, 0, 65535) + option)
        for i, packet in enumerate(packets):
            head = struct.pack("<IIIII", i % len(resolutions), i, 7, len(packet), len(packet))
            out += block(6, head + packet)
        return out

    plain = ethernet(ipv4(udp(b"hello")))
    tagged = ethernet(ipv4(udp(b"tagged")), tags=struct.pack(">HH", 0x8100, 141))
    twice = ethernet(ipv4(udp(b"twice")), tags=struct.pack(">HHHH", 0x88A8, 5, 0x8100, 141))
    six = ethernet(ipv6(udp(b"six")), 0x86DD)
    notes = [
        b'{"tickwire":"stream"}',
        b'{"tickwire":"lost","first":12,"count":3}',
        b'{"tickwire":"snapshot_end","first":812}',
        b'{"tickwire":"lost","first":99999999999999999999,"count":1}',
    ]
    options = ethernet(ipv6(struct.pack(">BB6x", 17, 0) + udp(b"six"), 0), 0x86DD)
    return {
        "nanoseconds": classic(plain, tagged, twice),
        "microseconds": classic(plain, magic=0xA1B2C3D4),
        "other_byte_order": classic(plain, tagged, order=">"),
        "ipv6": classic(six, options),
        "raw": classic(ipv4(udp(b"raw")), ipv6(udp(b"raw six")), link=101),
        "notes": classic(*(ipv4(udp(note)) for note in notes), link=101),
        "loopback": classic(struct.pack("<I", 2) + ipv4(udp(b"null")), link=0),
        "cooked": classic(b"s" * 14 + b"\x08\x00" + ipv4(udp(b"cooked")), link=113),
        "options": classic(ethernet(ipv4(udp(b"x"), options=bytes(8)))),
        "no_udp": classic(ethernet(ipv4(b"tcp", protocol=6)), ethernet(b"arp", 0x0806), plain),
        "fragments": classic(ethernet(ipv4(udp(b"x"), fragment=0x2000)), ethernet(ipv4(b"x", fragment=9))),
        "cut_tail": classic(plain, tagged)[:-9],
        "cut_header": classic(plain)[:20],
        "pcapng": next_generation(plain, tagged),
        "pcapng_microseconds": next_generation(plain, resolutions=(6,)),
        "pcapng_several": next_generation(plain, tagged, six, resolutions=(9, 6, 3, 0x8A)),
        "pcapng_cut": next_generation(plain, tagged)[:-30],
        "pcapng_no_interface": next_generation(resolutions=()) + block(6, bytes(20)),
    }


def handshake() -> dict[str, bytes]:
    """Answers to a handshake whose key is that of RFC 6455's example."""
    accept = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    upgrade, connection = b"Upgrade: websocket", b"Connection: Upgrade"

    def answer(*lines: bytes, status: bytes = b"HTTP/1.1 101 Switching Protocols") -> bytes:
        return b"\r\n".join([status, *lines, b"", b""])

    good = answer(upgrade, connection, accept)
    return {
        "accepted": good,
        "accepted_and_a_frame": good + b"\x81\x05hello",
        "lists": answer(b"upgrade: h2c, WebSocket", b"connection:keep-alive , UPGRADE", accept),
        "spaces": answer(upgrade, connection, accept.replace(b": ", b":\t  ") + b" \t"),
        "no_reason": answer(upgrade, connection, accept, status=b"HTTP/1.1 101"),
        "version_1.0": answer(upgrade, connection, accept, status=b"HTTP/1.0 101 x"),
        "not_found": answer(b"Content-Length: 4", status=b"HTTP/1.1 404 Not Found") + b"none",
        "elsewhere": answer(b"Location: /b", b"Retry-After: 9", status=b"HTTP/1.1 302 Found"),
        "until": answer(
            b"Date: Sun, 06 Nov 1994 08:49:37 GMT",
            b"Retry-After: Sunday, 06-Nov-94 08:50:37 GMT",
            status=b"HTTP/1.1 429 No",
        ),
        "until_of_c": answer(b"Retry-After: Sun Nov  6 08:50:37 1994", status=b"HTTP/1.1 503 No"),
        "chunked": answer(b"Transfer-Encoding: chunked", status=b"HTTP/1.1 451 No") + b"4\r\nno.\n\r\n0\r\n",
        "status_alone": b"HTTP/1.1\r\n\r\n",
        "status_cut": b"HTTP/1.1 10\r\n\r\n",
        "another_key": answer(upgrade, connection, accept[:-2] + b"A="),
        "two_keys": answer(upgrade, connection, accept, accept),
        "no_key": answer(upgrade, connection),
        "no_upgrade": answer(connection, accept),
        "extension": answer(upgrade, connection, accept, b"Sec-WebSocket-Extensions: permessage-deflate"),
        "no_extension": answer(upgrade, connection, accept, b"Sec-WebSocket-Extensions: "),
        "folded": answer(upgrade, connection, accept, b" folded: line"),
        "no_colon": answer(upgrade, connection, accept, b"line"),
        "other_protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
        "cut": good[:-2],
    }


def message_file() -> dict[str, bytes]:
    """One byte that chooses the size of the blocks, then messages behind their lengths."""

    def message(text: bytes) -> bytes:
        return struct.pack(">H", len(text)) + text

    day = b"".join(message(bytes([65 + i]) * (1 + 7 * i)) for i in range(20))
    packed = subprocess.run(["zstd", "-q", "-c"], input=day, capture_output=True, check=True).stdout
    squeezed = gzip.compress(day, mtime=0)
    files = {
        "plain": day,
        "one": message(b"S"),
        "long": message(b"x" * 4000) + message(b"y"),
        "zero": day + b"\0\0" + day,
        "zeros": bytes(40),
        "cut_in_a_message": day[:-3],
        "cut_in_a_length": day + b"\0",
        "gzip": squeezed,
        "gzip_twice": squeezed + squeezed,
        "gzip_cut": squeezed[:-9],
        "gzip_with_more_behind": squeezed + b"more",
        "zstd": packed,
        "zstd_cut": packed[:-5],
        "text": b'1700000000000000000 {"e":"trade"}\n',
    }
    return {name: bytes([len(name)]) + data for name, data in files.items()}


if __name__ == "__main__":
    write("handshake", handshake())
    write("message_file", message_file())
    write("pcap", pcap())
    write("soup_packet", soup_packet())
    write("mold_packet", mold_packet())
    write("websocket_frame", websocket_frame())
    write("binance_decoder", binance_decoder())
    write("capture_reader", capture_reader())
    write("itch", itch())
    write("glimpse", glimpse())
    write("rerequest", rerequest())
    write("stat_file", stat_file())
    write("stat_reader", stat_reader())
    write("control", control())
    write("configuration", configuration())
