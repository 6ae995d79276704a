"""`python -m tickwire.sim`, or `tickwire sim`: a local venue as a process of its own.

Prints one line of JSON when it is ready (addresses and instruments) and one with its counters at the
end. Ends with the play, or at SIGTERM, SIGINT or SIGHUP.

    tickwire sim --synthetic --market usdm --instruments 2 --fault drop=0.001
    tickwire sim --multicast --synthetic --instruments 2 --fault line_a_loss=0.01 --fault line_b_loss=0.01
    tickwire sim --multicast --day 01302020.NASDAQ_ITCH50.gz --pace 10
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import signal
import sys
from pathlib import Path

from tickwire.errors import ConfigError
from tickwire.outputs import refuse_over
from tickwire.sim.capture import CaptureMarket
from tickwire.sim.faults import Faults
from tickwire.sim.itch import SyntheticItch, read_messages, stocks_of, timed
from tickwire.sim.market import RULES, Market
from tickwire.sim.multicast import LineFaults, MulticastVenue
from tickwire.sim.server import Venue
from tickwire.sim.synthetic import SyntheticMarket

# How long a multicast venue answers requests after the end of its session.
_LAST_CHANCE_S = 1.0


def _pace(text: str) -> float:
    return math.inf if text == "max" else float(text)


def _files_of(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """What is played."""
    captures = arguments.capture or []
    named = [item.partition("=")[2] for item in captures if item.partition("=")[0] in RULES]
    return [("a capture", path) for path in (*captures, *named)]


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tickwire sim", description="A local venue.")
    # What says nothing about a multicast venue, and what about no other.
    by_price: list[argparse.Action] = []
    by_order: list[argparse.Action] = []
    markets = ", ".join(RULES)
    by_price.append(
        parser.add_argument("--market", action="append", help=f"of {markets}; repeat it or join by commas")
    )
    source = parser.add_mutually_exclusive_group(required=True)
    by_price.append(
        source.add_argument(
            "--capture",
            action="append",
            metavar="[MARKET=]FILE",
            help="capture to play; repeat it for files one after another",
        )
    )
    by_order.append(
        source.add_argument("--day", metavar="FILE", help="with --multicast: a day file of ITCH to play")
    )
    source.add_argument("--synthetic", action="store_true", help="a seeded random book")
    parser.add_argument(
        "--multicast", action="store_true", help="ITCH on two lines, with a re-request server and GLIMPSE"
    )
    parser.add_argument("--instruments", type=int, default=1, help="of each synthetic market (default 1)")
    parser.add_argument("--rate", type=float, default=2000.0, help="events a second a synthetic market")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=math.inf, help="length of a synthetic play")
    parser.add_argument("--pace", type=_pace, default=1.0, help="1, N times as fast, or max")
    by_price.append(
        parser.add_argument("--start-clients", type=int, default=1, help="how many to wait for (0: none)")
    )
    by_order.append(
        parser.add_argument(
            "--start-after",
            type=float,
            default=1.0,
            metavar="SECONDS",
            help="before a multicast venue begins: it cannot see who listens",
        )
    )
    by_order.append(parser.add_argument("--username", default="", help="that GLIMPSE asks for"))
    by_order.append(parser.add_argument("--password", default="", help="that GLIMPSE asks for"))
    parser.add_argument("--at-end", choices=("close", "idle"), default="close")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at, and to send multicast from")
    by_price.append(parser.add_argument("--port", type=int, default=0))
    by_price.append(
        parser.add_argument(
            "--tls", action="store_true", help="wss and https, self-signed (certificate: a path)"
        )
    )
    by_price.append(
        parser.add_argument("--ping-interval", type=float, help="seconds; default: the venue's own")
    )
    by_price.append(
        parser.add_argument("--pong-timeout", type=float, help="seconds; default: the venue's own")
    )
    by_price.append(
        parser.add_argument("--record", metavar="FILE", help="write the true stream as a capture")
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="KIND=RATE",
        help="a fault by chance, for example drop=0.001; see tickwire.sim.faults, and of multicast "
        "tickwire.sim.multicast",
    )
    arguments = parser.parse_args(argv)
    for action in by_price if arguments.multicast else by_order:
        if getattr(arguments, action.dest) != action.default:
            which = "with" if arguments.multicast else "without"
            parser.error(f"{action.option_strings[0]}: expected none {which} --multicast")
    if arguments.record is not None:
        try:
            refuse_over("--record", arguments.record, _files_of(arguments))
        except ConfigError as error:
            parser.error(str(error))
    return arguments


def _markets(arguments: argparse.Namespace) -> list[Market]:
    names = [name for value in arguments.market or ["spot"] for name in value.split(",")]
    if arguments.synthetic:
        return [
            SyntheticMarket(
                name,
                instruments=arguments.instruments,
                rate=arguments.rate,
                seed=arguments.seed,
                seconds=arguments.seconds,
            )
            for name in names
        ]
    files: dict[str, list[str]] = {name: [] for name in names}
    for value in arguments.capture:
        market, _, path = value.rpartition("=")
        if market not in RULES:
            # No market in front: a plain path, which may itself hold an equals sign.
            if len(names) > 1:
                raise ValueError(f"--capture: with several markets write MARKET=FILE, found {value!r}")
            market, path = names[0], value
        files.setdefault(market, []).append(path)
    return [CaptureMarket(name, [Path(path) for path in paths]) for name, paths in files.items()]


def _rates(arguments: argparse.Namespace) -> dict[str, float]:
    return {kind: float(rate) for kind, _, rate in (value.partition("=") for value in arguments.fault)}


def _stop_at_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if name == signal.SIGHUP and signal.getsignal(name) is signal.SIG_IGN:
            continue  # Under nohup.
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    return stop


async def _first_of(*tasks: asyncio.Task[object]) -> None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for task in done:
        task.result()


async def _serve_multicast(arguments: argparse.Namespace) -> None:
    if arguments.day:
        path = Path(arguments.day)
        stocks, messages = stocks_of(read_messages(path)), timed(read_messages(path))
    else:
        events = arguments.rate * arguments.seconds
        market = SyntheticItch(
            instruments=arguments.instruments, events=events, rate=arguments.rate, seed=arguments.seed
        )
        stocks, messages = list(market.stocks), market.messages()
    venue = MulticastVenue(
        host=arguments.host,
        faults=LineFaults.of(arguments.seed, _rates(arguments)),
        username=arguments.username,
        password=arguments.password,
    )
    stop = _stop_at_signals()

    async def play() -> None:
        await asyncio.sleep(arguments.start_after)
        await venue.play(messages, pace=0.0 if math.isinf(arguments.pace) else arguments.pace)
        if arguments.at_end == "idle":
            await stop.wait()
        else:
            await venue.end_session()
            await asyncio.sleep(_LAST_CHANCE_S)

    async with venue:
        ready = {
            "lines": [f"{group}:{port}" for group, port in venue.lines],
            # Of this host; another one's is what leads here.
            "interface": "lo" if arguments.host.startswith("127.") else "",
            "rerequest": "{}:{}".format(*venue.rerequest),
            "glimpse": "{}:{}".format(*venue.glimpse),
            "instruments": stocks,
        }
        print(json.dumps(ready), flush=True)
        await _first_of(asyncio.create_task(stop.wait()), asyncio.create_task(play()))
    sent = {"sessions": len(venue.sessions), "messages": sum(map(len, venue.sessions.values()))}
    print(json.dumps({**sent, **venue.counters}), flush=True)


async def _serve(arguments: argparse.Namespace) -> None:
    rates = _rates(arguments)
    faults = Faults(arguments.seed, rates) if rates else None
    venue = Venue(
        _markets(arguments),
        host=arguments.host,
        port=arguments.port,
        pace=arguments.pace,
        start_clients=arguments.start_clients,
        at_end=arguments.at_end,
        ping_interval_s=arguments.ping_interval,
        pong_timeout_s=arguments.pong_timeout,
        tls=arguments.tls,
        faults=faults,
        record=arguments.record,
    )
    stop = _stop_at_signals()
    async with venue:
        ready: dict[str, object] = {
            "port": venue.port,
            "ws_url": venue.ws_url,
            "stream_url": venue.stream_url,
            "rest_url": venue.rest_url,
            "instruments": venue.instruments,
        }
        if venue.certificate:
            ready["certificate"] = venue.certificate
        print(json.dumps(ready), flush=True)
        waiting: list[asyncio.Task[object]] = [asyncio.create_task(stop.wait())]
        if arguments.at_end == "close":
            waiting.append(asyncio.create_task(venue.finished.wait()))
        await _first_of(*waiting)
    counters: dict[str, object] = dict(venue.counters)
    if faults is not None:
        counters["faults"] = dict(faults.counts)
    print(json.dumps(counters), flush=True)


def main(argv: list[str] | None = None) -> int:
    arguments = _arguments(argv)
    try:
        import uvloop
    except ImportError:  # The venue is the same without it, only slower.
        run = asyncio.run
    else:
        run = uvloop.run
    try:
        run(_serve_multicast(arguments) if arguments.multicast else _serve(arguments))
    except (ValueError, OSError) as error:
        print(f"tickwire sim: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
