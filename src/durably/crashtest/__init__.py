"""``durably crashtest``: an application's own agent, killed at every boundary and looked at after.

Owns recording, killing, finishing and judging; how it is asked for and shown is the command line's.
"""
