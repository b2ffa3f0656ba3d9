"""More slots, and fewer: opened at the end, closed from the end, never below one. Pure.

A new slot is attended by a neighbour until its worker accepts. A slot that goes is steered away from, emptied by all
that hold it, and closed; then its worker drains, and passes its idle connections to another one.
"""

from __future__ import annotations

from typing import Final

from lastcall.supervisor import actions as do
from lastcall.supervisor.attendance import Door, Slot
from lastcall.supervisor.crew import INFO, WARNING, Crew, Failure

SLOTS_MOST: Final = 1024
"""More workers than any machine has processors; an order for more is a slip of the hand."""


class Scaling:
    """``wanted``: how many slots there are to be; ``advance`` brings them nearer, one at a time."""

    def __init__(self, crew: Crew, wanted: int) -> None:
        self._crew = crew
        self.wanted = wanted
        self._waiting: list[int] = []

    def order(self, request: int, slots: int) -> None:
        """Take an order. The newest counts; one for another number that still waits is settled by it."""
        if not 1 <= slots <= SLOTS_MOST:
            self._crew.settle(request, False, f"Cannot scale to {slots}: from 1 to {SLOTS_MOST} slots are possible.")
            return
        if slots != self.wanted:
            self._settle(False, f"Superseded: {slots} slots are wanted now.")
        self.wanted = slots
        self._waiting.append(request)

    def aim(self, slots: int) -> None:
        """The configuration has changed."""
        if slots != self.wanted:
            self._settle(False, f"Superseded by the configuration: {slots} slots are wanted now.")
            self.wanted = slots

    def give_up(self, why: str) -> None:
        """Settle what waits: it will not be."""
        self._settle(False, why)

    @property
    def moving(self) -> bool:
        """Whether listeners are being made or closed."""
        return any(slot.door is not Door.OPEN for slot in self._crew.slots.values())

    def advance(self) -> None:
        """Open or close one slot, if the number is not the one that is wanted; answer when it is."""
        if self.moving:
            return
        crew, slots = self._crew, self._crew.regular()
        frozen = [str(slot.index) for slot in crew.frozen()]
        if len(slots) < self.wanted and frozen:
            self.wanted = len(slots)
            self._settle(
                False,
                "Cannot scale up: after a failed reload there is no code that has proved itself, and slots "
                f"{', '.join(frozen)} run what was there before. Reload first.",
            )
        elif len(slots) < self.wanted:
            slot = Slot(len(slots), crew.disk)
            crew.slots[slot.index] = slot
            crew.out.append(do.OpenSlot(slot.index))
        elif len(slots) > self.wanted:
            self._close(slots[-1])
        elif self._waiting and all(slot.holder is not None for slot in slots if slot.generation >= crew.disk):
            crew.say(INFO, f"Scaled: {self.wanted} {'slots' if self.wanted > 1 else 'slot'}.")
            self._settle(True, f"{self.wanted} {'slots' if self.wanted > 1 else 'slot'}.", said=True)

    def _close(self, slot: Slot) -> None:
        slot.door = Door.CLOSING
        if slot.successor is not None:
            self._crew.dismiss(slot.successor, "scale")
        self._crew.out.append(do.CloseSlot(slot.index))

    def closed(self, slot: Slot) -> None:
        """The slot has no listeners any more: its worker has nothing to do."""
        del self._crew.slots[slot.index]
        for worker in (slot.holder, slot.successor):
            busy = any(worker in (one.holder, one.successor) for one in self._crew.slots.values())
            if worker is not None and not busy:
                self._crew.dismiss(worker, "scale")

    def slot_failed(self, slot: Slot, reason: str) -> None:
        """A new slot could not be made: it stays as it is."""
        self.wanted = len(self._crew.regular())
        text = f"Slot {slot.index} cannot be opened: {reason}. There are {self.wanted}."
        self._crew.say(WARNING, text)
        self._settle(False, text, said=True)

    def failed(self, failure: Failure) -> None:
        """A worker of a new slot did not start, as the log says: who waits is told; it is tried again."""
        if self._waiting and failure.coming:
            self._settle(False, f"Slot {failure.worker.slot}: {failure.why}. It is tried again.", said=True)

    def _settle(self, ok: bool, text: str, *, said: bool = False) -> None:
        for request in self._waiting:
            self._crew.settle(request, ok, text, said=said)
        self._waiting.clear()
