"""The broker's rules as plain values and functions: no clock, no storage, no framework.

Prices, quantities and money are integers of a scale that the value itself names; see
``domain.instrument`` for the scales and ``domain.arithmetic`` for the only three roundings.
"""
