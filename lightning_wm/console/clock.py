"""Durations as people read them."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """`M:SS`, `H:MM:SS`, or `D days H:MM:SS`: 65 s are `1:05`."""
    minutes, second = divmod(round(max(0.0, seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if not hours:
        return f"{minute}:{second:02}"
    text = f"{hour}:{minute:02}:{second:02}"
    return text if not days else f"{days} {'day' if days == 1 else 'days'} {text}"
