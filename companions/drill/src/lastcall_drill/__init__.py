"""``lastcall_drill``: how soundly an ASGI server stops, judged from outside."""
