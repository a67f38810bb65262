"""Who is asking: users, their credentials and sessions, the keys that sign tokens, the audit.

Owns the schema ``auth`` (``tables``): users and their credentials, sessions, API keys, tickets,
throttles, the queue of mails, the audit; and the URLs ``/api/v1/auth/…``. It publishes
``auth.user.registered`` (wallet and broker open the user's accounts from it), announces ended
sessions and revoked keys on ``trading:{auth}:revocation``, and consumes nothing.

A session is one sign-in on one device and at the same time one family of refresh tokens: its row
holds the hash of the only refresh token that is good now. Access tokens live for minutes and are
verified by every process itself (``runtime.identity``).
"""
