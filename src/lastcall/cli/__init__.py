"""The command ``lastcall`` and ``run()``: the only places that end the process."""
