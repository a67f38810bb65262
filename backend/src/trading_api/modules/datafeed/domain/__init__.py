"""Market data as plain values and pure functions.

``instrument``  what can be charted or traded
``resolution``  lengths of bars and their spellings
``columns``     bars as integer columns
``aggregate``   coarser bars from finer ones, session-aware
``bridge``      price paths that hit a bar's open, high, low and close exactly
``series``      stored history (HIST)
``simulated``   made-up days for an instrument without history
``demo``        the demo market: shifted, continued, simulated down to half a second (DEMO)

Prices are integers at the instrument's scale throughout; times are seconds since 1970 UTC where
they name a bar, microseconds where they name an instant.
"""
