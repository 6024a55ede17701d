"""One file a command. Each has `app`, a Typer with the command (or, for a group, its commands)."""
