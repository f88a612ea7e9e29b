"""The version of r2box."""

__version__ = "0.1.0"
