"""Background jobs and their schedules."""

from __future__ import annotations

from typing import Final

from ... import limits
from .schema import (
    BOOLEAN,
    COUNT,
    JOB_STATUS,
    MAP,
    NUMBER,
    QUEUE,
    STRING,
    TIME,
    Schema,
    array,
    closed,
    enum,
    extended,
    nullable,
    record,
    ref,
)

INTEGER: Final[Schema] = {"type": "integer"}
_KEY: Schema = {"type": "string", "maxLength": limits.JOB_KEY_CHARS_MAX}
_JOB_ID: Schema = {"type": "integer", "minimum": 0}
_PROGRESS = record(
    {
        "done": COUNT,
        "total": nullable(COUNT),
        "rate": nullable(NUMBER),
        "left_s": nullable(NUMBER),
        "unit": STRING,
    },
    description="How far a job is; rate is in units per second.",
)
_JOB = {
    "job_id": _JOB_ID,
    "kind": STRING,
    "library": nullable(STRING),
    "status": JOB_STATUS,
    "priority": INTEGER,
    "attempt": COUNT,
    "progress": nullable(_PROGRESS),
    "created_at": TIME,
    "started_at": nullable(TIME),
    "completed_at": nullable(TIME),
    "result": nullable(MAP),
    "error": nullable(ref("Error")),
    "schedule": nullable(STRING),
}
_SCHEDULED = {
    "kind": {"type": "string", "minLength": 1},
    "params": MAP,
    "library": nullable(STRING),
    "priority": {"type": "integer", "minimum": -limits.PRIORITY_MAX, "maximum": limits.PRIORITY_MAX},
    "timeout_s": nullable({"type": "number", "minimum": 0, "maximum": limits.JOB_SECONDS_MAX}),
}
_MISSED = enum("skip", "once", "all")
_CRON: Schema = {"type": "string", "maxLength": 1_000, "examples": ["0 3 * * *"]}

COMPONENTS: Final[dict[str, Schema]] = {
    "Job": record(_JOB, {"existing": BOOLEAN}, "A background job; vec-jobs(1) explains the keys."),
    "JobDetails": extended(
        "Job",
        {
            "params": MAP,
            "ready_at": nullable(TIME),
            "after": array(_JOB_ID),
            "unique": nullable(STRING),
            "lock": nullable(STRING),
            "timeout_s": nullable(NUMBER),
            "cancelling": BOOLEAN,
            "failures": COUNT,
            "crashes": COUNT,
            "checkpoint": nullable(MAP),
            "attempts": array(
                record(
                    {
                        "attempt": COUNT,
                        "started_at": TIME,
                        "ended_at": nullable(TIME),
                        "outcome": nullable(STRING),
                        "error": nullable(ref("Error")),
                    },
                    {"worker": nullable(STRING)},
                )
            ),
        },
    ),
    "Jobs": record({"jobs": array(ref("Job"))}, description="Jobs, newest first."),
    "JobLog": record(
        {"lines": array(record({"line": COUNT, "time": TIME, "text": STRING}))},
        description="Up to 500 lines of a job's log.",
    ),
    "Queue": record(
        {"jobs": array(ref("Job"))},
        QUEUE,
        description="The queue of jobs, and the running ones. A key for some libraries gets those of its libraries, and"
        " no counts.",
    ),
    "JobKinds": record(
        {
            "kinds": array(
                record(
                    {
                        "kind": STRING,
                        "what": STRING,
                        "library": enum("none", "optional", "required"),
                        "runs": enum("inside", "outside", "anywhere"),
                        "params": array(
                            record({"name": STRING, "what": STRING, "valid": STRING, "required": {"type": "boolean"}})
                        ),
                    }
                )
            )
        },
        description="The kinds of job, each with its parameters and their values in words.",
    ),
    "NewJob": closed(
        {"kind": _SCHEDULED["kind"]},
        {
            **{name: schema for name, schema in _SCHEDULED.items() if name != "kind"},
            "delay_s": nullable({"type": "number", "minimum": 0, "maximum": limits.JOB_SECONDS_MAX}),
            "after": nullable(array(_JOB_ID, maxItems=limits.JOB_IDS_MAX)),
            "unique": nullable(_KEY),
            "lock": nullable(_KEY),
        },
        "What `vec jobs submit` takes.",
        examples=[{"kind": "rebuild", "library": "notes"}, {"kind": "verify"}],
    ),
    "Submitted": record(
        {"job_id": _JOB_ID, "status": {"const": "submitted"}, "status_url": STRING},
        description="A job has been submitted, and is on disk.",
        examples=[{"job_id": 7, "status": "submitted", "status_url": "/v1/jobs/7"}],
    ),
    "Schedule": record(
        {
            "name": STRING,
            "cron": STRING,
            "zone": STRING,
            "missed": _MISSED,
            **_SCHEDULED,
            "kind": STRING,
            "priority": INTEGER,
            "next_at": nullable(TIME),
            "last_job": nullable(_JOB_ID),
            "error": nullable({}),
        },
        description="A schedule of jobs; `error` is why the last one could not be submitted.",
    ),
    "Schedules": record({"schedules": array(ref("Schedule"))}, description="All schedules, by name."),
    "NewSchedule": closed(
        {"name": {"type": "string", "minLength": 1}, "cron": _CRON, "kind": _SCHEDULED["kind"]},
        {
            "zone": STRING,
            "missed": _MISSED,
            **{name: schema for name, schema in _SCHEDULED.items() if name != "kind"},
            "replace": {**BOOLEAN, "description": "Replace a schedule with this name."},
        },
        examples=[{"name": "nightly", "cron": "0 3 * * *", "kind": "verify"}],
    ),
}
