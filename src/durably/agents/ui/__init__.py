"""Durable runs in the protocols of chat front ends, written by pydantic-ai's own adapters.

Owns what is told of a run, and how a half message is taken back; who asks for it is the web's.
"""
