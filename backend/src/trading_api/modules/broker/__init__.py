"""Broker: trading accounts, orders, executions, positions and what they are worth.

Owns the paper venue and its matching, and a ledger of its own for the accounts' cash. URLs:
``/api/v1/broker``. Reads quotes and instruments from datafeed, users from auth. Publishes
``broker.account.opened``, ``broker.order.*`` and ``broker.execution.recorded``.

The order's life: ``service.orders`` accepts under the account's lock, ``service.matching`` fills
what rests, both write order, execution, position, postings, account events and outbox in one
transaction through ``service.desk``.
"""
