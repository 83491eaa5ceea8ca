"""A small cache that drops what was used least recently."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class Recent:
    """The ``limit`` values, 1 or more, that were used last, by key."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.made: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """The value of ``key``; made by ``make`` if it is new or was dropped."""
        if key not in self.made:
            self.made[key] = make()
            while len(self.made) > self.limit:
                self.made.popitem(last=False)
        self.made.move_to_end(key)
        return self.made[key]
