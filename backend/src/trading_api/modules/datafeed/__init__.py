"""Market data: instruments, bars, quotes, the live feed.

Owns the tables ``datafeed.instruments``, ``series``, ``bar_chunks``, ``demo_market``; the URLs
``/api/v1/datafeed/…`` (native JSON), ``/api/v1/datafeed/udf/…`` (the UDF dialect that TradingView's
own client speaks) and ``/api/v1/datafeed/ws`` (channels ``bars`` and ``quotes``); the price
channels ``trading:{datafeed}:price:<instrument>`` on the bus. It publishes no facts and consumes
none.

Two exchanges: HIST serves the bundled series as they are, DEMO the same series shifted so that
they end now and continued without an end (``domain.demo`` says how).
"""
