"""The wire protocol, sans I/O: bytes in, messages out. It is documented in man/vec-protocol.7.

Knows msgpack and the limits; knows no socket, no thread, no event loop. The blocking client and the asyncio session
share it, and it can be tested a byte at a time.
"""
