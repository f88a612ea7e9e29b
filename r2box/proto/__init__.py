"""The protocol, pure: no descriptor, no clock, no randomness, no logging.

Time and random bytes come in as arguments.
"""
