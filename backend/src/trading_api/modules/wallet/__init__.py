"""wallet: whose money is where.

Owns funding wallets, their double-entry ledger and holds, deposits and withdrawals, and the rails
that money comes and goes by. Every wallet belongs to one user and one book, demo or funded.

URLs: `/api/v1/wallet`, `/deposit`, `/withdraw`, `/transactions`, `/transfers`, `/exchange`,
`/rates`, `/fees`, `/statement`; for operators `/fundings`, `/holds`, `/wallets`, `/entries`,
`/trial-balance`, `/verify`. WebSocket: `balances`, `transactions`, `transfers`.
Publishes: `wallet.entry.posted`, `wallet.transfer.closed`. Consumes:
`auth.user.registered` (opens the wallet; otherwise it is opened at first use).
"""
