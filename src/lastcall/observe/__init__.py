"""Observers: log set-up and the access log, injected into the server as ``base`` sinks."""
