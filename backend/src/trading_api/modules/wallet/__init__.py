"""wallet: whose money is where.

Owns funding wallets, their double-entry ledger and holds, deposits and withdrawals, and the rails
that money comes and goes by. Every wallet belongs to one user and one book, demo or funded.

URLs: `/api/v1/wallet`, `/deposit`, `/withdraw`, `/transactions`, `/fundings` (operators).
WebSocket: `balances`, `transactions`.
Publishes: `wallet.entry.posted`. Consumes: `auth.user.registered` (opens the wallet; otherwise it
is opened at first use).
"""
