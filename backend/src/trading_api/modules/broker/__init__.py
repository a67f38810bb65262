"""Broker: trading accounts, orders, executions, positions and what they are worth.

Owns the paper venue and its matching, and a ledger of its own for the accounts' cash. URLs:
``/api/v1/broker``. Reads quotes and instruments from datafeed, users from auth. Publishes
``broker.account.opened``, ``broker.order.*`` and ``broker.execution.recorded``.

The order's life: ``service.orders`` and ``service.positions`` take requests, ``service.counter``
finds their market and opens the account's desk, ``service.floor`` accepts, fills and closes there,
asking ``service.risk`` and the venue (``adapters.paper_venue``). ``service.matching`` brings quotes
to what rests. ``service.desk`` gathers order, execution, position, brackets, postings, account
events and facts and writes them in one transaction under the account's lock.
"""
