"""Turns in real processes that are killed and stopped, on real servers that fail over.

`tests/failover/test_turns.py` is the short form, `python -m tests.failover.turns` the long one.
"""
