"""The HTTP gateway: a process of its own, and a client of the daemon's socket like any other."""
