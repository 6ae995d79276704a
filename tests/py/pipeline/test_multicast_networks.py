"""A multicast venue and an engine on two hosts: network namespaces with a cable between them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import LONG_S

VENUE, ENGINE = "10.84.7.1", "10.84.7.2"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=LONG_S)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two namespaces; the cable's ends are `venue0` and `engine0`."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names = [f"tickwire-{os.getpid()}-{name}" for name in ("venue", "engine")]
    made = []
    try:
        for name in names:
            try:
                _ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
            made.append(name)
        _ip("-n", names[0], "link", "add", "venue0", "type", "veth", "peer", "engine0", "netns", names[1])
        for name, end, address in ((names[0], "venue0", VENUE), (names[1], "engine0", ENGINE)):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")
        yield names[0], names[1]
    finally:
        for name in made:
            _ip("netns", "del", name)


def test_an_engine_on_another_host_hears_the_venue(hosts: tuple[str, str], tmp_path: Path) -> None:
    venue_host, engine_host = hosts
    tickwire = str(Path(sys.executable).with_name("tickwire"))

    def run(host: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["ip", "netns", "exec", host, tickwire, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=90)

    faults = ("line_a_loss=0.05", "line_b_loss=0.05", "both_loss=0.01")
    sim = [tickwire, "sim", "--multicast", "--synthetic", "--host", VENUE, "--rate", "1000"]
    sim += ["--seconds", "60", "--start-after", "1"]
    sim += [word for fault in faults for word in ("--fault", fault)]
    venue = subprocess.Popen(
        ["ip", "netns", "exec", venue_host, *sim], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert venue.stdout is not None
        ready = json.loads(venue.stdout.readline())
        (tmp_path / "p.toml").write_text(
            f"""
            [[feeds]]
            venue = "nasdaq_itch"
            instruments = {json.dumps(ready["instruments"])}
            max_orders = 65536
            [feeds.multicast]
            lines = {json.dumps(ready["lines"])}
            interface = "engine0"
            rerequest = "{ready["rerequest"]}"
            glimpse = "{ready["glimpse"]}"
            [features]
            rows = ["queue_imbalance()", "order_arrival_rate(window='100ms')"]
            """,
            encoding="utf-8",
        )
        live = run(engine_host, "run", "--json", "--record", "RUN", "--seconds", "4", "p.toml")
        assert live.returncode == 0, live.stdout + live.stderr
    finally:
        venue.send_signal(signal.SIGTERM)
        sent = json.loads(venue.communicate(timeout=LONG_S)[0].splitlines()[-1])
    told = json.loads(live.stdout.splitlines()[-1])
    # Lost on the way, asked for, and complete; and what is recorded says the same.
    assert min(sent["lost_0"], sent["lost_1"]) > 0
    feed = told["multicast"]["nasdaq_itch"]
    assert feed["lost_messages"] == 0
    assert min(feed["lines"][line]["received"] for line in ("line0", "line1")) > 0
    assert told["rows"] > 0
    verified = run(engine_host, "verify", "RUN")
    assert verified.returncode == 0, verified.stdout + verified.stderr
