"""One worker of a fleet: a server whose listeners, orders and end come from a parent, over the channel."""
