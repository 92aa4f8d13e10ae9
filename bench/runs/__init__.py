"""Agent runs, measured beside what a user would pick instead of durably."""
