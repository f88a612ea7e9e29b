"""Tests without processes, descriptors or sockets."""
