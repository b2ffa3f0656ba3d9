"""What applications are told of a stop, and the running tasks that are told: the half of the drain that knows loops."""
