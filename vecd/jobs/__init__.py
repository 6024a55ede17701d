"""Background jobs: heavy work that is submitted in a moment and done by itself.

    jobs.py        Jobs: what the verbs work on, and its life
    queue.py       which pending job is next; no threads, no clock
    workers.py     the threads: claim, step, checkpoint, finish
    retry_policy.py  what is known of an attempt, and what becomes of the job when it is over
    operations.py  submit, list, show, wait, cancel, retry, drop, pause, resume
    due_times.py   when a schedule is due: cron lines, time zones, missed times; no clock
    timezones.py   time zones by name, and the machine's
    scheduler.py   the clock that submits what is due, and the verbs of schedules
    clocks.py      the wall clock and the steady clock
    kinds/         one file a kind of job, and the table of all

A job's row is the truth (store/jobs.py, job_transitions.py); what is in memory follows the commits, as the indexes do.
"""
