"""`vec` of another user: `python -m tests.cli.as_nobody UID ARGUMENT...`, as root.

Whatever it needs is imported before it becomes that user, who may not be able to read Python's own files.
"""

from __future__ import annotations

import importlib
import os
import sys

MODULES = (
    "json",
    "tomllib",
    "difflib",
    "zlib",
    "vecd.client",
    "vecd.client.spawn",
    "vec_cli.output",
    "vec_cli.commands.status",
)

if __name__ == "__main__":
    for name in MODULES:
        importlib.import_module(name)
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
    sys.argv = ["vec", *sys.argv[2:]]
    importlib.import_module("vec_cli.main").main()
