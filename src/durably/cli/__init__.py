"""The command line: thin commands over `durably.Durably`; nothing heavy is imported before use."""
