"""The one exception of the benchmark."""

from __future__ import annotations


class BenchError(Exception):
    """Something that keeps one server, or the whole run, from being measured; the message is for the reader."""
