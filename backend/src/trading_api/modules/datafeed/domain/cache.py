"""A bounded cache by size."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class SizedCache(Generic[V]):
    """Values by key, the most recently used ones; their sizes never add up to more than a bound.

    A value that alone is over the bound isn't kept.

    Args:
        size_max: bytes.
    """

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self._size = 0
        self._kept: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()

    @property
    def size(self) -> int:
        """Return the bytes of everything kept."""
        return self._size

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: Hashable) -> V | None:
        """Return a value, the most recently used from now on; None where it must be made."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def keep(self, key: Hashable, value: V, size: int) -> V:
        """Keep a value of ``size`` bytes, dropping the longest unused ones; return it."""
        before = self._kept.pop(key, None)
        if before is not None:
            self._size -= before[1]
        if size <= self.size_max:
            self._kept[key] = (value, size)
            self._size += size
        while self._size > self.size_max:
            _, (_, dropped) = self._kept.popitem(last=False)
            self._size -= dropped
        return value

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()
        self._size = 0
