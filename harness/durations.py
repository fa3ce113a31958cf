"""How a length of time is said."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """40 s · 3 min 20 s · 2 h 05 min · unknown"""
    if seconds is None:
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
