"""The command ``lastcall-once``, and ``lastcall once`` where lastcall is installed: the only places that exit."""
