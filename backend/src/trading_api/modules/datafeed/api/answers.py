"""Finished answers of the bars routes, kept while they stay true."""

from collections.abc import Hashable

from trading_api.modules.datafeed.domain.cache import SizedCache
from trading_api.modules.datafeed.schemas import Pieces

SIZE_MAX_BYTES = 8 * 1024 * 1024
"""Some twenty native answers of 5,000 bars, or forty of UDF's."""

ASKED_MAX = 1024
"""Questions that are remembered to have been asked once."""


class FinishedAnswers:
    """Encoded answers by question; one whose version changed counts as absent.

    The newest kept within ``size_max`` bytes, and only such that were asked for twice: windows
    that nobody asks for again would push out the others. The same question gives the same bytes as
    long as its version stands, whichever of its clients asks.
    """

    def __init__(self, size_max: int = SIZE_MAX_BYTES) -> None:
        self._answers: SizedCache[tuple[Hashable, bytes]] = SizedCache(size_max)
        self._asked: SizedCache[Hashable] = SizedCache(ASKED_MAX)

    def find(self, question: Hashable, version: Hashable) -> bytes | None:
        """Return the answer of this version, None where it must be made."""
        kept = self._answers.find(question)
        return kept[1] if kept is not None and kept[0] == version else None

    def keep(self, question: Hashable, version: Hashable, pieces: Pieces) -> bytes | Pieces:
        """Return an answer to send; joined and kept where the question was asked before.

        Drops the longest unused ones.
        """
        if self._asked.find(question) != version:
            self._asked.keep(question, version, 1)
            return pieces
        answer = b"".join(pieces)
        self._answers.keep(question, (version, answer), len(answer))
        return answer
