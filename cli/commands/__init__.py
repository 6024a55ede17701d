"""The commands of `vec`, one module each. A module has `app`, a Typer with the command, or with the commands of a
group."""
