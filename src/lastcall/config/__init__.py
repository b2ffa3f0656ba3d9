"""The one table of options, and the ``Config`` that command line, environment and keywords are resolved into."""

from lastcall.config.config import Config

__all__ = ["Config"]
