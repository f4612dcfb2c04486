"""The user's own modules: imported so that what they register can be named."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from lightning_wm.errors import UserError


def load_plugins(modules: Sequence[str]) -> None:
    """Import the user's own modules, so that what they register can be named.

    Raises:
        UserError: a module cannot be imported.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise UserError(
                f"plugins: {name!r} cannot be imported ({type(error).__name__}: {error}); expected a module that "
                f"'python -c \"import {name}\"' finds here; install it or start from the folder it lies in"
            ) from error
