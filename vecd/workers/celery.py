"""What `celery -A vecd.workers.celery worker` runs: the task of a message that a daemon has sent (executor_celery.py).
The broker is the one that vecd's own settings name."""

from __future__ import annotations

from . import messages, tasks
from .executor_celery import TASK, amqp_answer, application
from .executor_redis import answer, connection
from .executor_settings import of_worker

_url = of_worker("celery").broker_url()
app = application(_url)
_redis = connection(_url) if _url.startswith("redis") else None


def embed(message: bytes) -> None:
    answers, data = messages.request(message).answers, tasks.embed(message)
    if _redis is not None:
        answer(_redis, answers, data)
    else:
        amqp_answer(app)(answers, data)


app.task(embed, name=TASK)
