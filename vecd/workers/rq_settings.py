"""Settings for RQ, `rq worker -c vecd.workers.rq_settings vecd`: the broker that vecd's own settings name. RQ forks a
process for each job; what is loaded here need not be loaded by each."""

from __future__ import annotations

from . import rq
from .executor_settings import of_worker

REDIS_URL = of_worker("rq").broker_url()

#: What each job needs.
_loaded = rq.embed
