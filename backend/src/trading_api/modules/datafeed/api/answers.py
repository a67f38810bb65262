"""Finished answers of the bars routes, kept while they stay true."""

from collections import OrderedDict
from collections.abc import Hashable

SIZE_MAX_BYTES = 16 * 1024 * 1024
"""About forty answers of 5,000 bars; small beside the 110 MiB of a process."""


class FinishedAnswers:
    """Encoded answers by question; one whose version changed counts as absent.

    The newest kept within ``size_max`` bytes. The same question gives the same bytes as long as
    its version stands, whichever of its clients asks.
    """

    def __init__(self, size_max: int = SIZE_MAX_BYTES) -> None:
        self._size_max = size_max
        self._size = 0
        self._answers: OrderedDict[Hashable, tuple[Hashable, bytes]] = OrderedDict()

    def find(self, question: Hashable, version: Hashable) -> bytes | None:
        """Return the answer of this version, None where it must be made."""
        kept = self._answers.get(question)
        if kept is None or kept[0] != version:
            return None
        self._answers.move_to_end(question)
        return kept[1]

    def keep(self, question: Hashable, version: Hashable, answer: bytes) -> None:
        """Keep an answer, dropping the longest unused ones."""
        before = self._answers.pop(question, None)
        self._size += len(answer) - (len(before[1]) if before else 0)
        self._answers[question] = (version, answer)
        while self._size > self._size_max:
            _, (_, dropped) = self._answers.popitem(last=False)
            self._size -= len(dropped)
