"""`make soak`: storms at the local venues for minutes, each with its own seed, held to the truth.

    tools/soak.py --minutes 10            storms of 30 s, seeds from one printed at the start
    tools/soak.py --seed 1234 --rounds 1  one of them again
    tools/soak.py --kills 1000 --rounds 0 a worker process killed at random moments, every row held to account

A seed decides the market's messages and which opportunity goes wrong; the threads' timing it cannot.
Ends with 1 at the first storm that does not hold, after printing how to run it again.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "py" / "helpers"))

import multicast_rig
from monitor import Rig, storm
from worker_storm import kill_storm

_LAYOUTS = ("threads", "inline")
_VENUES = ("websocket", "multicast")


# One run of the pipeline each: its recording is replayed at the end.
_KILLS_A_RUN = 250


def _line(seed: int, layout: str, done: Rig) -> str:
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(done.faults.counts.items()))
    lost = [outage for told in done.monitor.told.values() for outage in told.outages_s()]
    return (
        f"soak: seed {seed}, {layout}: {done.checked:,} rows as the truth has them and replayed bit for bit; "
        f"books lost {len(lost)} times, longest {max(lost, default=0.0):.1f} s; {faults}"
    )


def _storm(venue: str, seed: int, *, seconds: float, layout: str, folder: Path) -> str:
    """What a storm came to, in a line."""
    if venue == "websocket":
        return _line(seed, layout, asyncio.run(storm(seed, seconds=seconds, layout=layout, folder=folder)))
    rig, checked = asyncio.run(multicast_rig.storm(seed, seconds=seconds, layout=layout, folder=folder))
    lost = [outage for told in rig.monitor.told.values() for outage in told.outages_s()]
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(rig.venue.counters.items()))
    return (
        f"soak: seed {seed}, {layout}, multicast: {checked:,} rows as the truth has them and replayed bit "
        f"for bit; books lost {len(lost)} times, longest {max(lost, default=0.0):.1f} s; {faults}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/soak.py", description="Storms for minutes.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, help="so many storms instead of so many minutes")
    parser.add_argument("--seconds", type=float, default=30.0, help="of one storm (default 30)")
    parser.add_argument("--seed", type=int, help="of the first storm; default: by chance")
    parser.add_argument("--layout", choices=_LAYOUTS, help="default: in turns")
    parser.add_argument("--venue", choices=_VENUES, help="default: in turns")
    parser.add_argument(
        "--kills", type=int, default=0, help="first: kills of a worker process at random moments (default 0)"
    )
    arguments = parser.parse_args()

    seed = arguments.seed if arguments.seed is not None else random.randrange(1 << 32)
    for kills in (min(_KILLS_A_RUN, left) for left in range(arguments.kills, 0, -_KILLS_A_RUN)):
        with TemporaryDirectory(prefix="tickwire-soak-") as folder:
            try:
                print(
                    f"soak: seed {seed}: {asyncio.run(kill_storm(seed, kills=kills, folder=Path(folder)))}",
                    flush=True,
                )
            except Exception:  # Whatever it was, it is the finding.
                traceback.print_exc()
                print(
                    f"soak: failed; again: tools/soak.py --seed {seed} --kills {kills} --rounds 0",
                    file=sys.stderr,
                )
                return 1
        seed += 1
    end = time.monotonic() + 60.0 * arguments.minutes
    number = 0
    while number < arguments.rounds if arguments.rounds is not None else time.monotonic() < end:
        layout = arguments.layout or _LAYOUTS[number % 2]
        venue = arguments.venue or _VENUES[number // 2 % 2]
        with TemporaryDirectory(prefix="tickwire-soak-") as folder:
            try:
                line = _storm(
                    venue, seed + number, seconds=arguments.seconds, layout=layout, folder=Path(folder)
                )
            except Exception:  # Whatever it was, it is the finding.
                traceback.print_exc()
                again = f"--seed {seed + number} --rounds 1 --layout {layout} --venue {venue}"
                again += f" --seconds {arguments.seconds:g}"
                print(f"soak: failed; again: tools/soak.py {again}", file=sys.stderr)
                return 1
        print(line, flush=True)
        number += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
