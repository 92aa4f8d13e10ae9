"""Queue and ledger, measured: enqueueing, starting, draining, resuming, and a ledger grown large."""
