"""Integer division with a named rounding; nothing here ever sees a float."""


def divide_half_even(numerator: int, denominator: int) -> int:
    """Divide, rounding to the nearest integer and ties to the even one; denominator > 0."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient % 2):
        quotient += 1
    return quotient


def divide_up(numerator: int, denominator: int) -> int:
    """Divide, rounding towards plus infinity; denominator > 0."""
    return -(-numerator // denominator)


def rescale(raw: int, from_scale: int, to_scale: int) -> int:
    """Restate a count of 10^-from_scale at another scale, half-even where digits are lost."""
    if to_scale >= from_scale:
        return raw * int(10 ** (to_scale - from_scale))
    return divide_half_even(raw, int(10 ** (from_scale - to_scale)))
