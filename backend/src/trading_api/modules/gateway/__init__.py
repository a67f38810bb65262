"""The platform as a whole: what no single module can answer.

Owns no table. Serves the root metadata and start page (``/``), the health of all modules
(``/health``, ``/api/v1/health``), the API's versions (``/api/v1/versions``, ``/api/v1/version``),
the live registry of processes (``/api/v1/modules``), the documents of all modules merged
(``/openapi.json``, ``/asyncapi.json``, also under ``/api/v1``) and their pages (``/docs``,
``/redoc``, ``/api/v1/ws/asyncapi``) from local assets. Its socket ``/api/v1/gateway/ws`` has one
channel, ``health``. Publishes and consumes no facts.
"""
