"""Decisions: plain objects and functions that are told things and answer.

The rule of this floor: no `async`, no socket, no clock, no chance of its own. Time comes in as
`now` (seconds on one monotonic clock) or `utc_now`, chance as a random generator, the environment
as a mapping. Nothing here is thread-safe; whoever shares an object guards it.
"""
