"""The HTTP service of once: keys, leases and the permissions of agents, for programs in any language.

An ordinary ASGI application, ``lastcall_once.service.app.Service``, over any store of ``lastcall_once.stores``. It
speaks the protocol of the public client package ``onceonly-sdk``. It runs nothing itself: it decides and records.
"""
