"""From the engine's ring to whoever listens, on the event loop.

Loads nothing by itself: a configuration names sinks, which know the queue of notices, and needs no NumPy.
"""
