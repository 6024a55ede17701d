"""The wire, sans I/O: bytes in, messages out (man/vec-protocol.7 is its public text).

Knows msgpack and the limits; knows no socket, no thread, no event loop. The blocking client and the asyncio session
share it, and it can be tested a byte at a time.
"""
