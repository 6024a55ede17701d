"""Workers in other processes and on other machines: the heavy and pure part of jobs and of ingests, computed elsewhere.

Texts are embedded by workers of Celery, RQ or Dramatiq, by `vec worker` processes, or by child processes of the daemon,
which commits what comes back. Slow embedders never run in the daemon's own process.

executor.py       in the daemon: who embeds which texts
executor_*.py     the side of the daemon for frameworks: settings, the table of frameworks, what is sent, limits
celery.py rq.py dramatiq.py
                  what the workers of a framework load; a framework's library is imported only in its own files
tasks.py          the task: texts to vectors as bytes (messages.py)
local_pool.py     child processes of the daemon, which run the same task (local.py)
leased_tasks.py   in the daemon: embedding tasks (texts to vectors), which workers hold by lease
leased_worker.py  the process `vec worker`: claims tasks and jobs, and runs them
leased_jobs.py    the kinds of job that `vec worker` runs, one function each
"""
