"""Adds the embedders `slow` and `deep` to every Python process that has this folder in PYTHONPATH, so that tests start
the daemon and the workers by the commands that users type."""

from vecd.text.embedders import EMBEDDERS

EMBEDDERS["slow"] = "tests.workers.slow_embedder"
EMBEDDERS["deep"] = "tests.workers.deep_embedder"
