"""The HTTP gateway, through real clients."""
