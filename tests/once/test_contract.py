"""The contract's tests, on every store (``tests/once/contract.py``)."""

from tests.once.contract import *  # noqa: F403
