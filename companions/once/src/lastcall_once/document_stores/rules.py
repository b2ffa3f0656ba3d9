"""What may be asked of a document store, and how charges are decided: the same for all of them. Pure.

Numbers end at ``MOST``, the largest integer that Lua, in Redis, adds without an error: nine milliards of a currency,
in millionths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lastcall_once._record import Record as _Record
from lastcall_once.documents import Charge

MOST = 2**53 - 1


class Sum(_Record):
    """All that is charged to one counter in one call. ``keep`` is the first charge's: it may make the counter."""

    counter: str
    amount: int
    keep: float


def check_charges(charges: Sequence[Charge]) -> None:
    """Raise ValueError for an amount or a time that is none."""
    for charge in charges:
        if not 0 <= charge.amount <= MOST:
            raise ValueError(f"the amount to charge is 0 to {MOST}, not {charge.amount}")
        if not charge.keep > 0:
            raise ValueError(f"a counter is kept for more than 0 s, not {charge.keep}")


def check_keep(keep: int) -> None:
    """Raise ValueError for a number of entries that cannot be kept: the newest one always is."""
    if not 1 <= keep <= MOST:
        raise ValueError(f"a stream keeps 1 to {MOST} entries, not {keep}")


def bounded(number: int) -> int:
    """``number`` of things, as all stores can count them."""
    return max(0, min(number, MOST))


def limit_of(charge: Charge) -> int:
    """The value that the counter may have at most after ``charge``; -1 if none will do."""
    return MOST if charge.limit is None else max(-1, min(charge.limit, MOST))


def first_refused(charges: Sequence[Charge], values: Mapping[str, int]) -> str | None:
    """The first counter that would go above its limit, or None. ``values`` has those before the charges, without 0s."""
    after = dict(values)
    for charge in charges:
        value = after.get(charge.counter, 0) + charge.amount
        if value > limit_of(charge):
            return charge.counter
        after[charge.counter] = value
    return None


def sums(charges: Sequence[Charge]) -> list[Sum]:
    """What is charged to each counter, in the order of their names: whoever takes locks takes them in this order."""
    found: dict[str, Sum] = {}
    for charge in charges:
        before = found.get(charge.counter, Sum(charge.counter, 0, charge.keep))
        found[charge.counter] = Sum(charge.counter, before.amount + charge.amount, before.keep)
    return sorted(found.values(), key=lambda each: each.counter)
