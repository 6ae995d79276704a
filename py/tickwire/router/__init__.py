"""From the engine's ring to whoever listens, on the event loop."""

from tickwire.router.age import AgeLimit
from tickwire.router.consumers import FeatureStream, SignalQueue, SignalStream
from tickwire.router.router import Router

__all__ = ["AgeLimit", "FeatureStream", "Router", "SignalQueue", "SignalStream"]
