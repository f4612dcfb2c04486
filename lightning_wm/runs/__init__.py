"""A run on disk: its directory, its files, and looking at them before they are believed."""
