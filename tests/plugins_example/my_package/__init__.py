"""A user's own package: one planner and one callback, found through `plugins: [my_package]`."""

from my_package import notes, shooting

__all__ = ["notes", "shooting"]
