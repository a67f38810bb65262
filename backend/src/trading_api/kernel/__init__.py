"""Plain values and seams that every other package stands on: errors, clock, ids, money.

Nothing here knows a framework, a database or a network.
"""
