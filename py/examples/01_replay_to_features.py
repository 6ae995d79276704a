"""Rows of features from a capture, as NumPy arrays and without a copy.

Makes its own capture with the simulator; with a recording of yours, give its path and its venue instead.
"""

import asyncio
import tempfile
from pathlib import Path

import tickwire as tw
from tickwire.sim import SyntheticMarket, write_capture

CONFIG = {
    "feeds": [{"venue": "binance_usdm", "source": "file", "instruments": ["BTCUSDT"]}],
    "features": {
        "trigger": "book",
        "rows": [
            "imbalance(levels=5)",
            "microprice_offset()",
            "zscore(ofi(levels=5, window='1s'), window='2s')",
        ],
    },
}


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        capture = Path(folder) / "capture.log"
        with capture.open("wb") as file:
            write_capture(SyntheticMarket("usdm", rate=500, seed=7, seconds=10), file)

        async with tw.Pipeline.replay(tw.Config.from_dict(CONFIG), [capture]) as pipeline:
            rows = 0
            last = None
            async for batch in pipeline.features():
                rows += len(batch.rows)
                last = batch.values[-1].copy()  # The view is gone when the loop goes on.
            print(f"{rows} rows; the last: {last}")


asyncio.run(main())
