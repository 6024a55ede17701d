"""workers: turns texts into vectors outside the daemon, which commits what comes back.

`tasks` is the work itself, texts to vectors as bytes, and needs no store. Child processes of the daemon run it
(`local_pool`), and so do workers on other machines, under Celery, RQ or Dramatiq (`celery`, `rq`, `dramatiq`: what
these programs load). `executor` is the daemon's side: it sends messages through a broker and hands out the answers;
`executor_table` lists the frameworks. man/vec-workers.7 is the contract.

The libraries of the frameworks are imported only in the file of each.
"""
