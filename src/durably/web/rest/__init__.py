"""The REST API; each part of it has its own module with its routes."""
