"""The version, which stands only here."""

__all__ = ["__version__"]

__version__ = "0.1.0.dev0"
"""The version of this library."""
