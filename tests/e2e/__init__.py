"""Tests of the built file: real processes, real peers, real sockets."""
