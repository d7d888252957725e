"""Requests in, results out: the KV pool, the scheduler, the engine and the interfaces."""
