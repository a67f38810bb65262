"""Which passwords are accepted: length and guessability, no composition rules (NIST SP 800-63B)."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from trading_api.kernel.errors import FieldError
from trading_api.modules.auth.errors import PasswordRefusedError

LENGTH_MAX = 128
"""Long enough for any pass phrase; a bound, so that hashing can't be made expensive."""

LENGTH_MIN_WITH_SECOND_FACTOR = 8

_SEQUENCES = (
    "abcdefghijklmnopqrstuvwxyz",
    "0123456789",
    "1234567890",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/",
)
_CONTEXT_LENGTH_MIN = 4
_UNIT_LENGTH_MAX = 4
_EDGES = re.compile(r"^[\W\d_]+|[\W\d_]+$")


def normalize_password(password: str) -> str:
    """Return the form that is hashed and counted: NFC, nothing trimmed or cut."""
    return unicodedata.normalize("NFC", password)


@dataclass(frozen=True, slots=True)
class PasswordRules:
    """What a new password must keep to.

    Attributes:
        length_min: in characters after normalisation.
        common: case-folded passwords that guessers try first.
    """

    length_min: int
    common: frozenset[str]

    def accept(
        self, password: str, *, about: Iterable[str] = (), has_second_factor: bool = False
    ) -> str:
        """Return the normalised password.

        Args:
            has_second_factor: a shorter one will do then (NIST SP 800-63B-4, 3.1.1.2).
            about: words that a guesser knows of this user, such as name and address.

        Raises:
            PasswordRefusedError: names the rule; never repeats the password.
        """
        normalized = normalize_password(password)
        length_min = LENGTH_MIN_WITH_SECOND_FACTOR if has_second_factor else self.length_min
        if len(normalized) < length_min:
            raise _refused("too_short", f"use at least {length_min} characters")
        if len(normalized) > LENGTH_MAX:
            raise _refused("too_long", f"use at most {LENGTH_MAX} characters")
        folded = unicodedata.normalize("NFKC", normalized).casefold()
        if self._is_guessable(folded):
            raise _refused("too_common", "this password is among the first that are tried")
        if _is_about(folded, about):
            raise _refused("too_personal", "this password is made of your name or address")
        return normalized

    def is_short(self, normalized: str) -> bool:
        """Tell whether an accepted password is good only together with a second factor."""
        return len(normalized) < self.length_min

    def _is_guessable(self, folded: str) -> bool:
        unit = _repeated_unit(folded)
        if unit in self.common or folded in self.common or len(unit) <= _UNIT_LENGTH_MAX:
            return True
        # A common word with figures around it is tried right after the word itself.
        core = _EDGES.sub("", folded)
        if core in self.common or _repeated_unit(core) in self.common:
            return True
        return any(_runs_along(folded, sequence) for sequence in _SEQUENCES)


def _is_about(folded: str, about: Iterable[str]) -> bool:
    core = _EDGES.sub("", folded)
    words = {text.casefold() for text in about}
    words |= {part for word in words for part in re.split(r"[\W_]+", word)}
    return any(len(word) >= _CONTEXT_LENGTH_MIN and word in (core, folded) for word in words)


def _repeated_unit(text: str) -> str:
    """Return the shortest text whose repetition gives ``text``, perhaps cut at the end."""
    for length in range(1, len(text) // 2 + 1):
        unit = text[:length]
        if (unit * (len(text) // length + 1))[: len(text)] == text:
            return unit
    return text


def _runs_along(text: str, sequence: str) -> bool:
    """Tell whether the text runs along a row of the keyboard or alphabet, round and round."""
    for row in (sequence, sequence[::-1]):
        laps = row * (len(text) // len(row) + 2)
        if text in laps:
            return True
    return False


def _refused(rule: str, message: str) -> PasswordRefusedError:
    return PasswordRefusedError(message, errors=[FieldError("password", rule, message)])
