"""Double-entry ledger engine: balanced immutable entries, holds, proofs.

A module that keeps money (wallet, broker) makes the tables of this package in its own metadata with
`ledger_tables` and hands them to `Ledger`. What lives here: the values and pure rules (`domain`),
the tables and their guards (`tables`), the engine that writes them (`engine`) and the checks that
prove them (`checks`). What does not: transactions (the caller's), currencies' limits, who may move
which money, events.

Import from the rooms: `trading_api.ledger.domain`, `.tables`, `.engine`, `.checks`, `.errors`.
"""
