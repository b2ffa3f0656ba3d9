"""Minimal applications of the cards: standard library only, and plain ASGI 3, so that every server runs them."""
