"""Background jobs: submitting one returns at once; a worker, inside the daemon or elsewhere, does the work.

    jobs.py          Jobs: the background work of one engine, and its life
    queue.py         which pending job is next; no threads, no clock
    dispatcher.py    gives jobs to workers, takes their steps and results: claim, heartbeat, checkpoint, finish
    leases.py        running attempts, and the leases of those that are made outside the daemon
    worker_threads.py  the daemon's own workers: threads
    external_workers.py  the ops that workers outside the daemon call
    effects.py       what a step writes, as data
    retry_policy.py  what becomes of a job when an attempt has ended without completing it
    operations.py    submit, list, show, wait, cancel, retry, drop, pause, resume
    due_times.py     when a schedule is due: cron lines, time zones, missed times; no clock
    timezones.py     time zones by name, and the machine's
    scheduler.py     submits what schedules make due; the operations of schedules
    periodic.py      tasks that the daemon calls again and again, and that leave no job
    clocks.py        the wall clock and the steady clock
    kinds/           one file a kind of job, and the table of all

A job's row is the truth (store/jobs.py, job_transitions.py); what is in memory follows the commits, as the indexes do.
"""
