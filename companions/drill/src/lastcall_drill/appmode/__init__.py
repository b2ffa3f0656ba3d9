"""``lastcall drill --app``: how the user's own application stops, with some of its routes open.

``routes`` are what is asked for, ``acting`` serves, opens and stops, ``judging`` says what to think of what was seen,
``culprits`` reads who is to blame out of the server's own output, and ``remedy`` says what to change.
"""
