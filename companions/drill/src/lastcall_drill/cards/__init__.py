"""Fix cards: known failures of servers at the stop, each with a reproduction that proves it, and what mends it."""
