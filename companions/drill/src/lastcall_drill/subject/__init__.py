"""What the drill lets servers serve. This directory is put on their ``sys.path``, and nothing else of lastcall."""
