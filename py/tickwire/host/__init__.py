"""The host that an engine runs on: what it is like (`doctor`), and what it does to a busy core (`jitter`).

Reading only. `scripts/tuning` is what changes a host.
"""
