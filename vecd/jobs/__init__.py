"""Background jobs: a persistent job queue, with workers inside the daemon and outside it.

    jobs.py          Jobs: the job system of one engine, and its lifecycle
    queue.py         selects the next pending job; no threads, no clock
    dispatcher.py    assigns jobs to workers and takes their steps and results: claim, heartbeat, checkpoint, finish
    leases.py        running attempts, and the leases of workers outside the daemon
    worker_threads.py  the daemon's own workers: threads
    external_workers.py  the ops for workers outside the daemon
    effects.py       what a step writes, as data
    retry_policy.py  the next state of a job after an attempt that did not complete it
    operations.py    submit, list, show, wait, cancel, retry, drop, pause, resume
    due_times.py     when a schedule is due: cron expressions, time zones, missed times; no clock
    timezones.py     time zones by name, and the system's
    scheduler.py     submits the jobs of due schedules; the operations on schedules
    periodic.py      periodic tasks of the daemon that are not jobs
    clocks.py        the wall clock and the steady clock
    kinds/           one file per kind of job, and the table of them

The store has the authoritative state of jobs (store/jobs.py, job_transitions.py); memory follows its commits.
"""
