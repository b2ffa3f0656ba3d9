"""A worker: one server in an interpreter of its own, under a parent that binds, watches and gives the orders."""
