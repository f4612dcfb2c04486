"""Targets beyond the outermost bin of a two-hot head train as that bin: this is said, with what to type."""

from __future__ import annotations

import math
import warnings

from torch import nn

from lightning_wm.models.heads import TwoHotHead


class Saturation:
    """Warns once for each setting whose bins end before the targets do."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def check(self, module: nn.Module) -> None:
        """Compare what the two-hot heads of `module` were trained on with how far their bins reach."""
        for head in module.modules():
            if isinstance(head, TwoHotHead) and head.setting not in self._said:
                self._compare(head)

    def _compare(self, head: TwoHotHead) -> None:
        largest, reach = float(head.largest), float(head.support[-1])
        if not math.isfinite(largest) or largest <= reach * (1.0 + 1e-6):  # what is not finite is the guard's
            return
        self._said.add(head.setting)
        setting, bins = head.setting, len(head.support)
        wider = max(math.ceil(math.log1p(largest)), math.ceil(head.limit) + 1)
        finer = 2 * math.ceil((bins - 1) / 2 * wider / head.limit) + 1
        warnings.warn(
            f"targets reach {largest:,.1f} in magnitude, but with {setting}={head.limit:g} the outermost bin is "
            f"{reach:,.1f}: what lies beyond trains as {reach:,.1f}. Expected every target within the bins: type "
            f"{setting}={wider} {setting.removesuffix('_limit')}s={finer} in a new run. Said once.",
            RuntimeWarning,
            stacklevel=4,
        )
