"""Turning the circle inside the Trainer: collecting, judging, saving, logging."""
