"""The side room of observers: log set-up and the access log, injected into the server as ``base`` sinks."""
