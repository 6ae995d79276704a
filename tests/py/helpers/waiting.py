"""How a test waits for what must come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LONG_S = 100.0
"""Longer than anything takes that works, on the busiest machine; a test that waits so long has failed."""


async def until(
    condition: Callable[[], object],
    what: Callable[[], object] | str = "what was waited for",
    *,
    look: Callable[[], object] | None = None,
    seconds: float = LONG_S,
) -> None:
    """Until `condition` is true. Before each further look at it `look` is called, which raises where
    waiting is in vain. `what` says what did not come."""
    end = time.monotonic() + seconds
    while not condition():
        if look is not None:
            look()
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what if isinstance(what, str) else what()}")
        await asyncio.sleep(0.01)


def wait_until(condition: Callable[[], object], what: str = "what was waited for") -> None:
    """The same where there is no event loop."""
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end, f"not within {LONG_S:g} s: {what}"
        time.sleep(0.05)
