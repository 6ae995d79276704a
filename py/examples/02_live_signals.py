"""Live signals from a venue: here the simulator, with a small model made on the spot."""

import asyncio
import tempfile
from pathlib import Path

import tickwire as tw
from tickwire import models
from tickwire.sim import SyntheticMarket, Venue


async def main() -> None:
    async with Venue([SyntheticMarket("spot", instruments=2, rate=500, seed=7)]) as venue:
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model.onnx"
            config = tw.Config.from_dict(
                {
                    "feeds": [
                        {
                            "venue": "binance_spot",
                            "url": venue.ws_url["spot"],
                            "rest_url": venue.rest_url["spot"],
                            "instruments": venue.instruments["spot"],
                        }
                    ],
                    "features": {"rows": ["imbalance(levels=5)", "mean(spread(), window='500ms')"]},
                    "model": {"path": str(model)},
                }
            )
            # One that was trained elsewhere is bound once: tickwire model bind MODEL --config pipeline.toml
            models.make_demo_model(model, config.schema())

            async with tw.Pipeline(config) as pipeline:
                seen = 0
                async for signal in pipeline.signals():
                    print(signal.instrument, signal.row, signal.scores, f"{signal.latency_ns / 1000:.0f} us")
                    seen += 1
                    if seen == 10:
                        break


asyncio.run(main())
