"""Queue and ledger, measured: storing, starting, draining, resuming, and a ledger grown large."""
