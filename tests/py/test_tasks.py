"""How the control plane's tasks end."""

from __future__ import annotations

import asyncio
import logging

import pytest
from waiting import LONG_S

from tickwire.tasks import end, repeat, to_the_end


async def test_a_turn_that_raises_is_said_once_a_kind_and_the_next_one_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    turns = 0
    enough = asyncio.Event()

    async def turn() -> None:
        nonlocal turns
        turns += 1
        if turns == 6:
            enough.set()
        raise ValueError("odd" if turns % 2 else "even")

    with caplog.at_level(logging.ERROR):
        task = asyncio.create_task(repeat(turn, 0.0, "the watch"))
        async with asyncio.timeout(LONG_S):
            await enough.wait()
        assert not task.done()
        await end(task)
    assert task.cancelled()
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"the watch: ValueError: {kind} (it goes on; said once)" for kind in ("odd", "even")]
    assert all(record.exc_info for record in caplog.records), "with the place in the code"


async def test_a_cancelled_wait_waits_all_the_same() -> None:
    begun, go_on, log = asyncio.Event(), asyncio.Event(), []

    async def work() -> str:
        begun.set()
        await go_on.wait()
        log.append("done")
        return "result"

    task = asyncio.create_task(to_the_end(work()))
    await begun.wait()
    for _ in range(3):  # However often: somebody presses Ctrl-C again.
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["done"]
    assert await to_the_end(work()) == "result"


async def test_what_the_work_raises_comes_out() -> None:
    async def work() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await to_the_end(work())
