"""``conformance``: TradingView's data tests against any server, with what a chart would show.

``server``     asks a server in one of two dialects: UDF, or the data part of Broker REST (``tv``)
``rules``      the tests' register, and how one is run
``basics``     configuration, symbols, search, errors, sign-in
``history``    bars
``streaming``  the chunked stream of the ``tv`` dialect
``report``     terminal, HTML, JSON and JUnit
``command``    arguments and the run itself

The tests' names and pass criteria are those that TradingView publishes for data integrations;
names that begin with ``udf`` are rules of its UDF client.
"""
