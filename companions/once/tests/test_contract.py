"""The contract's tests, on every store (``companions/once/tests/contract.py``)."""

from companions.once.tests.contract import *  # noqa: F403
