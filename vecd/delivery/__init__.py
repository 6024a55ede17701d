"""Deliver a feed of events to something that may fail: at least once, in order, in batches.

    source (source.py) -> batches (batches.py) -> loop (loop.py) -> sink (sink.py)
                                                    |
                                                    +-> dead letters (dead_letters.py)

`vec watch --exec` delivers to a command, a relay to a broker. Rules: nothing here knows a terminal or a socket. The
code blocks: it belongs on a thread of its own, and all its waits end when its `Stop` is set.
"""

from .batches import DeliveryBatch
from .dead_letters import DeadLetterFile, DeadLetters
from .loop import Delivery, DeliveryOptions, Observer
from .sink import AttemptFailed, Refused, Sink
from .source import EventSource, SourceMessage, Stop

__all__ = [
    "AttemptFailed",
    "DeadLetterFile",
    "DeadLetters",
    "Delivery",
    "DeliveryBatch",
    "DeliveryOptions",
    "EventSource",
    "Observer",
    "Refused",
    "Sink",
    "SourceMessage",
    "Stop",
]
