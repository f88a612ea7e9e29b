"""Simulations on a virtual clock, and the tests that use them."""
