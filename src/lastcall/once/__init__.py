"""``lastcall.once``: at most one execution per key. Works under any ASGI server, and without one.

"Exactly once" is not on offer: the side effect and its record are two systems. The promise is: at most one execution
per lease, and the stored answer for every retry after it.
"""
