"""``lastcall drill``: how soundly an ASGI server stops, judged from outside; and the doctor."""
