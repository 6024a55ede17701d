"""vec doctor: looks for what is wrong with the instance, and says what to do about it."""

from __future__ import annotations

import sys

import typer

from .. import main, options
from ..output import Output, one_line

app = options.command()


@app.command(
    epilog="Starts no daemon. Exit status: 0 nothing is wrong, even if there are warnings, 1 something is."
    " See vec-doctor(1)."
)
def doctor(json: options.Json = False, socket: options.Socket = None) -> None:
    """Look for what is wrong with the instance, and say what to do about it."""
    from ..doctor import findings

    output = Output(json)
    failed = warned = 0
    for each in findings(socket):
        failed += each.state == "fail"
        warned += each.state == "warn"
        if output.json:
            body = {"check": each.check, "state": each.state, "message": each.message, "hint": each.hint}
            output.objects([body], flush=True)
            continue
        print(f"{each.state:<5} {each.check:<12} {one_line(each.message)}", flush=True)
        if each.hint:
            print(f"{'':<18} {one_line(each.hint)}", flush=True)
    if not output.json:
        print(f"{failed} failed, {warned} warned" if failed or warned else "nothing is wrong", file=sys.stderr)
    if failed:
        raise typer.Exit(main.FAILED)
