"""How long a test waits for what must come."""

LONG_S = 100.0
"""Longer than anything takes that works, on the busiest machine; a test that waits so long has failed."""
