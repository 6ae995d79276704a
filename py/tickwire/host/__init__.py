"""The host that an engine runs on: what it is like (`doctor`), and what it does to a busy core (`jitter`).

Reading only. `scripts/tuning` is what changes a host.
"""

from __future__ import annotations

from tickwire.host.doctor import Report, diagnose
from tickwire.host.finding import CHECKS, Finding, Host, Profile, Verdict, Wanted
from tickwire.host.reader import Absent, Reader, Unreadable

__all__ = [
    "CHECKS",
    "Absent",
    "Finding",
    "Host",
    "Profile",
    "Reader",
    "Report",
    "Unreadable",
    "Verdict",
    "Wanted",
    "diagnose",
]
