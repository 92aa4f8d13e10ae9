"""``python -m durably``: the command line."""

from durably.cli.main import main

main()
