"""Price paths that hit a bar's open, high, low and close exactly.

A finer step inside a real bar is a simulation, and it is bound to what the bar says: the path
starts at the open, ends at the close, touches high and low and never leaves them. Everything is
integer arithmetic on a counter-based hash, so every process and every machine draws the same path,
in any order, without remembering anything.
"""

import hashlib
from math import isqrt

import numpy as np
import numpy.typing as npt

from trading_api.modules.datafeed.domain.columns import Ints

Keys = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_STEP_DEVIATION = 18_918
"""Standard deviation of a step uniform over 2^16 values: 65536 / sqrt(12)."""

_NOISE_PERCENT = 45
"""Deviation of the noise half way between two fixed points, in percent of the bar's range, were
the path one stretch. Chosen by eye: below 20 the path looks drawn with a ruler."""


def key_of(seed: str, symbol: str, purpose: str) -> int:
    """Return the 64-bit key that all of a symbol's draws for one purpose start from."""
    text = "\0".join((seed, symbol, purpose)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def mix(keys: Keys) -> Keys:
    """Return well spread 64-bit hashes of 64-bit keys (the finaliser of splitmix64)."""
    z = (keys ^ (keys >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


def keys_at(key: int, indexes: Ints) -> Keys:
    """Return one key per index (bar number, minute number)."""
    return mix((indexes.astype(np.uint64) + np.uint64(1)) * _GOLDEN ^ np.uint64(key))


def draws(keys: Keys, count: int, stream: int) -> Keys:
    """Return ``count`` hashes for each key, shape (keys, count); streams are independent."""
    counters = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(stream << 32)
    return mix(keys[:, None] + counters * _GOLDEN)


def paths(keys: Keys, prices: tuple[Ints, Ints, Ints, Ints], steps: int) -> Ints:
    """Return the prices of ``steps + 1`` instants inside each bar, shape (bars, steps + 1).

    Args:
        keys: one per bar.
        prices: open, high, low and close of the bars, in ticks.
        steps: at least 4, so that high and low have a place of their own.

    Each row begins at the open, ends at the close, and its maximum and minimum are the high and
    the low.
    """
    opens, highs, lows, closes = (column[:, None] for column in prices)
    firsts, seconds, first_is_high = _turning_points(keys, prices, steps)
    first_prices = np.where(first_is_high, highs, lows)
    second_prices = np.where(first_is_high, lows, highs)
    instants = np.arange(steps + 1, dtype=np.int64)[None, :]
    in_first = instants <= firsts
    in_second = ~in_first & (instants <= seconds)

    begins = np.where(in_first, 0, np.where(in_second, firsts, seconds))
    ends = np.where(in_first, firsts, np.where(in_second, seconds, steps))
    lengths = np.maximum(ends - begins, 1)
    elapsed = instants - begins
    from_ = np.where(in_first, opens, np.where(in_second, first_prices, second_prices))
    to = np.where(in_first, first_prices, np.where(in_second, second_prices, closes))

    walk = np.zeros((len(keys), steps + 1), dtype=np.int64)
    uniform = (draws(keys, steps, 1) >> np.uint64(48)).astype(np.int64) - 32_768
    np.cumsum(uniform, axis=1, out=walk[:, 1:])
    at_begin = np.take_along_axis(walk, begins, axis=1)
    at_end = np.take_along_axis(walk, ends, axis=1)
    noise = walk - at_begin - (at_end - at_begin) * elapsed // lengths
    ranges = highs - lows
    damping = _STEP_DEVIATION * isqrt(steps * 10_000) // (2 * _NOISE_PERCENT)
    straight = from_ + (to - from_) * elapsed // lengths
    return _fold(straight + noise * ranges // damping, lows, ranges)


def _turning_points(
    keys: Keys, prices: tuple[Ints, Ints, Ints, Ints], steps: int
) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
    """Return when the path touches its first and second extreme, and which the first one is.

    An extreme that the open or close already is needs no turning point of its own. A bar that
    rises mostly visits its low first.
    """
    opens, highs, lows, closes = prices
    random = draws(keys, 3, 0)
    high_at = (random[:, 0] % np.uint64(steps - 1)).astype(np.int64) + 1
    low_at = (random[:, 1] % np.uint64(steps - 2)).astype(np.int64) + 1
    low_at += low_at >= high_at
    swap = (random[:, 2] % np.uint64(4) != 0) & ((closes > opens) == (high_at < low_at))
    high_at, low_at = np.where(swap, low_at, high_at), np.where(swap, high_at, low_at)
    high_at = np.where(opens == highs, 0, np.where(closes == highs, steps, high_at))
    low_at = np.where(opens == lows, 0, np.where(closes == lows, steps, low_at))
    first_is_high = high_at < low_at
    firsts = np.minimum(high_at, low_at)[:, None]
    seconds = np.maximum(high_at, low_at)[:, None]
    return firsts, seconds, first_is_high[:, None]


def _fold(prices: Ints, lows: Ints, ranges: Ints) -> Ints:
    """Return prices reflected at low and high until they lie between them."""
    periods = np.maximum(2 * ranges, 1)
    phase = (prices - lows) % periods
    folded: Ints = lows + np.minimum(phase, periods - phase) * (ranges > 0)
    return folded
