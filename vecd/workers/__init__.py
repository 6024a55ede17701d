"""Workers in other processes and on other machines: the heavy and pure part of jobs and of ingests, computed elsewhere.

leased_tasks.py   in the daemon: embedding tasks (texts to vectors), which workers hold by lease
leased_worker.py  the process `vec worker`: claims tasks and jobs, and runs them
leased_jobs.py    the kinds of job that `vec worker` runs, one function each
"""
