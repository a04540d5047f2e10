"""The version, in one place: the wheel's metadata, the command and the connections take it from here."""

__all__ = ["__version__"]

__version__ = "0.1.0"
