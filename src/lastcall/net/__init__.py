"""Sockets and readiness: listeners, the native reactor, the portable asyncio streams. Knows no protocol."""
