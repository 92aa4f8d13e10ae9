"""What pages show, made from records: pure functions, no request, no database."""
