"""HTTP routes of the wallet, one file per API version."""
