"""The command ``lastcall-drill``, and ``lastcall drill`` where lastcall is installed: the only places that exit."""
