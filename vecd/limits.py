"""All bounds of the program (sizes, counts, timeouts), each with its reason. A name ends with the unit.

A bound that users may change is a field of Settings; its default is here.
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- the wire -------------------------------------------------------------------------------------------------------
#: One frame: 8,192 documents of 2 KB.
FRAME_BYTES_MAX: Final = 16 * MIB
#: Memory of one decoded request. Text and vectors take a small multiple of their frame, and a request of `vec ingest`
#: at most a fifth of this; a frame of only empty maps would take 1.2 GiB.
REQUEST_BYTES_MAX: Final = 256 * MIB
#: Frames up to this size are decoded on the event loop, in a millisecond; if the backlog is full, only tiny ones.
FRAME_BYTES_AT_ONCE: Final = 64 * KIB
FRAME_BYTES_TINY: Final = 4 * KIB
#: Bytes of incomplete large frames (over FRAME_BYTES_AT_ONCE) over all connections.
INCOMING_BYTES_MAX: Final = 128 * MIB
#: Minimum rate of an incoming frame, in bytes per second, after STALL_S; a slower connection is closed.
FRAME_BYTES_S_MIN: Final = 64 * KIB
#: Seconds that a frame may take to arrive while others wait for its part of INCOMING_BYTES_MAX.
FRAME_CROWDED_S: Final = 5.0
#: Items of one array or map in a message. msgpack allocates an array when it reads its header, and a hostile frame can
#: nest headers 1,024 deep: 16,384 slots keep the worst case at 128 MiB that is never touched.
ARRAY_ITEMS_MAX: Final = 16_384
#: Unanswered requests of one connection, without subscriptions; beyond it the session stops reading.
UNANSWERED_MAX: Final = 64
#: Decoded bytes of the unanswered requests of one connection: two of the largest frames of text or vectors, one being
#: decoded while the other is processed.
UNANSWERED_BYTES_MAX: Final = 2 * FRAME_BYTES_MAX
#: Decoded bytes of unanswered requests over all connections, which bounds the memory for many concurrent writers.
BACKLOG_BYTES_MAX: Final = 256 * MIB
#: Subscriptions and other streams of one connection.
STREAMS_MAX: Final = 1024
#: Bytes in a connection's send buffer beyond which its streams pause and its requests are no longer read.
SEND_BUFFER_BYTES_MAX: Final = 256 * KIB
#: Answers, or pages of answers, that are read from the store at once, over all connections and for one. They are held
#: until they are in a send buffer, and one may be as large as a frame. More would only queue for the reader threads.
ANSWERS_AT_ONCE: Final = 8
CONNECTION_ANSWERS_AT_ONCE: Final = 2
#: Bytes in all send buffers. Beyond it no more answers are computed, and the connections that hold most of it and have
#: read nothing for UNREAD_CROWDED_S are closed, until there is space again.
UNREAD_BYTES_MAX: Final = 256 * MIB
UNREAD_CROWDED_S: Final = 1.0
#: How long a peer may delay its hello, the rest of a frame, or reading our answers, before its connection is closed.
STALL_S: Final = 60.0
#: Connections at once: each costs about 5 KB and a file descriptor.
CONNECTIONS_MAX: Final = 4096
#: File descriptors that the daemon needs besides its connections: a dozen of its own, two for each reader thread of the
#: store, some for jobs' files, one to accept a connection that it then refuses.
OWN_DESCRIPTORS: Final = 56
#: The same for each worker beyond WORKERS: two to read the store, two for its job's files.
WORKER_DESCRIPTORS: Final = 4
#: The listen backlog: 1,000 watchers that reconnect at the same time must all fit.
LISTEN_BACKLOG: Final = 1024

#: Characters of a message, a hint or a detail in an error reply: enough to quote the input, and bounded for any input.
ERROR_CHARS_MAX: Final = 1_000
#: The same for the errors of a batch's documents, of which there may be thousands: together they fit one frame.
BATCH_ERROR_CHARS_MAX: Final = 100
#: Number of errors of one batch up to which each may have ERROR_CHARS_MAX characters.
BATCH_ERRORS_WHOLE: Final = 500
#: Characters of a key of a map that is not a document: names of parameters.
KEY_CHARS_MAX: Final = 200
#: Seconds in a request: a hundred years. Clocks and timers overflow far beyond that.
SECONDS_MAX: Final = 100 * 366 * 86_400
#: Event types, or globs of types, of one watch, and the characters of one: globs are compiled to patterns.
TYPES_MAX: Final = 100
TYPE_CHARS_MAX: Final = 64

# --- documents ------------------------------------------------------------------------------------------------------
#: Documents of one ingest request; more would mean a longer transaction, for which others wait.
BATCH_DOCUMENTS_MAX: Final = 8_192
#: Chunks, and characters of their texts, that are written at once: a larger request is processed in parts. A part takes
#: the writer a few hundredths of a second; a document beyond the bounds is one part.
PART_CHUNKS: Final = 512
PART_CHARS: Final = 512 * KIB
#: A part is prepared in steps of at most PREPARE_SLICE_CHARS, a few milliseconds each, grouped into slices of
#: PREPARE_SLICE_S: other requests wait for at most one slice.
PREPARE_SLICE_CHARS: Final = 8 * KIB
PREPARE_SLICE_S: Final = 0.01
#: Preparations up to this long, about a thousand characters, have a dedicated thread.
PREPARE_SMALL_S: Final = 0.002
#: One line of NDJSON input: allows a large document with its vectors, and bounds the cost of a file without newlines.
LINE_BYTES_MAX: Final = 8 * MIB
#: An id is a key that people type and scripts pass on: a URL or a path. (It is in the event of each of its chunks.)
ID_BYTES_MAX: Final = 512
#: A title is a line.
TITLE_BYTES_MAX: Final = 4 * KIB
#: Metadata is read with every hit.
METADATA_BYTES_MAX: Final = 256 * KIB
#: Nesting depth of objects and lists in JSON: orjson's bound, the lowest of all parsers and encoders that process
#: metadata (msgpack has 1,024, SQLite 1,000).
JSON_DEPTH_MAX: Final = 254
#: Levels around metadata. An event with its document has four in a message or in a file of dead letters: items, event,
#: data, document; the others are reserved.
ENVELOPE_DEPTH_MAX: Final = 14
#: Nesting depth of metadata, including the metadata object, so that it can be encoded with all levels around it.
METADATA_DEPTH_MAX: Final = JSON_DEPTH_MAX - ENVELOPE_DEPTH_MAX
#: Chunks of one document. Its events are never split over two frames: an update may have two events per chunk, each of
#: up to 110 bytes and two or three times the id, which together stay under FRAME_BYTES_MAX.
DOCUMENT_CHUNKS_MAX: Final = 5_000
#: The line of a file where a chunk begins.
LINE_MAX: Final = 2**31 - 1
#: Components of a vector: the largest embedding models have at most 8,192.
DIMENSION_MAX: Final = 16_384
#: A library's name is a path segment in a shell, a URL and a file name.
NAME_BYTES_MAX: Final = 128
#: Characters of a chunk: long enough for a paragraph, short enough for a meaningful mean of token vectors.
CHUNK_CHARS: Final = 1_000
CHUNK_CHARS_MAX: Final = 100_000

# --- reading --------------------------------------------------------------------------------------------------------
#: Hits of one search.
HITS_MAX: Final = 1_000_000
#: Hits or documents in one page, which is read and sent at once; more are sent as a stream of messages. Few, because a
#: chunk may be megabytes long.
PAGE_ITEMS: Final = 100
#: The same for whole documents.
PAGE_DOCUMENTS: Final = 16
#: Bytes from which a page is full.
PAGE_BYTES: Final = MIB
#: Characters of hits that are read together for a batch of searches; the remaining searches read theirs one by one.
HITS_AT_ONCE_CHARS: Final = 8 * MIB
#: Characters of cached hits, and of one cached hit: about 30,000 hits of the usual size.
HITS_KEPT_CHARS: Final = 32 * MIB
HIT_CHARS_MAX: Final = 16 * KIB
#: How long a read view may be used while the vacuum waits for it: a person may read page by page at a terminal. It
#: costs the space of what is removed and trimmed meanwhile.
READ_VIEW_S: Final = 3_600.0
#: The same for an export job, which only waits for the disk.
EXPORT_VIEW_S: Final = 86_400.0
#: Filters of one request, their total characters, and (below) their nesting depth: the parser is recursive.
FILTERS_MAX: Final = 100
FILTER_CHARS_MAX: Final = 100_000
#: Comparisons in the filters of one request (`in` counts as one, with a list of any length): each is a pass over a
#: column. And the fields that they name: each that is not in memory is read from all documents.
FILTER_TESTS_MAX: Final = 1_000
FILTER_FIELDS_MAX: Final = 100
FILTER_DEPTH_MAX: Final = 100
#: Characters of a regular expression in a filter, and instructions that RE2 compiles it to: for each character of a
#: text, it takes up to 15 ns for each. And seconds that it may take on the strings of one field.
FILTER_PATTERN_CHARS_MAX: Final = 1_000
FILTER_PATTERN_STEPS_MAX: Final = 1_000
FILTER_PATTERN_S: Final = 5.0
#: Fields that one update of metadata sets or removes, and documents whose errors its answer names.
UPDATE_FIELDS_MAX: Final = 100
#: Chunks whose documents one transaction of an update takes: it reads them on the writer's thread, and others wait.
UPDATE_CHUNKS: Final = 96
UPDATE_ERRORS_MAX: Final = 100
#: Characters of filters that are parsed on the event loop; more take milliseconds, and are parsed on a thread.
FILTER_CHARS_AT_ONCE: Final = 2_000
#: Filters whose masks are cached; each takes a byte per document.
FILTER_MASKS_KEPT: Final = 32
#: Approximate bytes of the columns of one library; beyond it the least recently used ones are dropped.
FILTER_COLUMNS_BYTES: Final = 128 * MIB
#: Columns of one library, with the same effect: every commit extends all of them.
FILTER_COLUMNS_MAX: Final = 500
#: Approximate bytes of metadata, and number of documents, that one statement returns when columns are loaded: a few
#: milliseconds of the interpreter lock.
COLUMNS_PAGE_BYTES: Final = 256 * KIB
COLUMNS_PAGE_DOCUMENTS: Final = 1_024
#: Documents that may wait in the inbox of a library's columns while no filter is used.
ATTRIBUTES_PENDING: Final = 20_000
#: Characters of a query: longer ones are documents.
QUERY_CHARS_MAX: Final = 100_000
#: Documents of one transaction of a delete: other writes run between two transactions.
DELETE_DOCUMENTS: Final = 500
#: The same on a full disk: a transaction must fit into the reserve, and may change a page or two per document.
DELETE_DOCUMENTS_TIGHT: Final = 100
#: The effort of an approximate search; beyond it an exact one is cheaper.
EF_MAX: Final = 100_000
#: The default target recall of approximate searches, and the lowest that can be requested. 1 is exact.
RECALL: Final = 0.98
RECALL_MIN: Final = 0.5
#: Hits of a search with explanations: people read them, and they are sent in one message.
EXPLAINED_MAX: Final = PAGE_ITEMS
#: Hits with passages, likewise; and the length of a passage: some lines of a terminal.
PASSAGES_MAX: Final = PAGE_ITEMS
PASSAGE_CHARS_MIN: Final = 20
PASSAGE_CHARS_MAX: Final = 10_000
#: Libraries of one search: each is asked for its best hundred.
SEARCHED_LIBRARIES_MAX: Final = 256
#: Ids of one get or delete request.
IDS_MAX: Final = 10_000
#: Events of one frame. The events of one document are never split, so a document with more makes a larger frame.
EVENTS_PAGE: Final = 1_000
#: Bytes of documents in one message of a watch with payload. A single larger document may take PAYLOAD_BYTES_MAX, which
#: fits a frame; what does not fit is left out, and the event says so.
PAYLOAD_BYTES: Final = MIB
PAYLOAD_BYTES_MAX: Final = FRAME_BYTES_MAX - MIB
#: Bytes of encoded events that are kept for watchers of the same selection that are close to the head. Slower watchers
#: read the store.
RING_BYTES: Final = 4 * MIB
#: The same for all selections; beyond it the largest rings are evicted. And bytes of events that one round of the
#: broadcast encodes: watchers of selections beyond it read the store themselves, page by page.
RINGS_BYTES_MAX: Final = 64 * MIB
ROUND_BYTES_MAX: Final = 32 * MIB
#: CPU seconds that one round may spend on selecting; the selections with the most expensive filters come last, and the
#: watchers of those without a turn read the store themselves.
ROUND_S: Final = 0.05
#: Default interval of heartbeats to a watch at the head; they say how far the log has been read for it.
HEARTBEAT_S: Final = 5.0
#: Missed heartbeats after which the daemon counts as dead or stopped.
HEARTBEATS_MISSED: Final = 6
#: After a round of the broadcast, the next waits for as long as the round took, but at most this long. Events that
#: arrive meanwhile are sent together, so a thousand watchers leave half of the event loop's time to other requests.
FEED_REST_S: Final = 0.05
#: Watchers that are woken at once, a few milliseconds of the event loop.
FEED_WAKES: Final = 64
#: Approximate bytes that watchers woken at once send: one or two milliseconds of the event loop.
FEED_WAKES_BYTES: Final = MIB
#: Rows that one step of the vacuum deletes, and pages that one frees: other writes run between two steps.
VACUUM_ROWS: Final = 2_000
VACUUM_PAGES: Final = 256
#: The same on a full disk, where the pages that a step changes must fit into the write-ahead log's space.
VACUUM_ROWS_TIGHT: Final = 200
VACUUM_PAGES_TIGHT: Final = 32
#: How often the log is trimmed according to the retention settings.
RETENTION_EVERY_S: Final = 60.0
#: A consumer's name is typed by people and appears in lists.
CONSUMER_NAME_BYTES_MAX: Final = 128

# --- connectors -----------------------------------------------------------------------------------------------------
#: Relays, and sources, of one instance: each has a thread and a connection to the daemon.
CONNECTORS_MAX: Final = 100
#: Bytes of a connector's definition as JSON: all are sent together.
CONNECTOR_BYTES_MAX: Final = 64 * KIB
#: Dead letters of one connector, and the bytes of their bodies; when it has more, it stops until some are dropped.
DEAD_LETTERS_MAX: Final = 10_000
DEAD_LETTERS_BYTES_MAX: Final = 64 * MIB
#: The body of a dead letter; of a longer one only the length is kept.
DEAD_LETTER_BYTES_MAX: Final = 8 * MIB
#: Dead letters of one page of a list, and of one commit, and approximate bytes of both.
DEAD_LETTERS_PAGE: Final = 100
DEAD_LETTERS_PAGE_BYTES: Final = 8 * MIB
#: Files of a sync of one page of what is known of them, and of one commit: each takes some hundred bytes.
SYNC_PAGE_FILES: Final = 2_000
SYNC_COMMIT_FILES: Final = 10_000
#: Bytes of the path of a file, and of the other things that are known of it.
SYNC_PATH_BYTES_MAX: Final = 4 * KIB
SYNC_VALUE_BYTES_MAX: Final = 256
#: Nice value of the connector process: writes and searches go first, and a relay that falls behind catches up later.
CONNECTORS_NICE: Final = 5
#: How often the connector process reports the state of its relays and sources.
CONNECTORS_REPORT_S: Final = 0.5
#: How often a busy relay stores its position: after a crash it sends again what it sent since.
RELAY_COMMIT_S: Final = 0.1
#: How long a connector takes to stop, beyond the time-out of a call to its broker.
CONNECTORS_STOP_S: Final = 5.0
#: A broker's message as a source takes it: an event with a document of thousands of vectors, as numbers in JSON.
SOURCE_MESSAGE_BYTES_MAX: Final = 32 * MIB
#: Messages, and bytes of their bodies, that a source applies in one transaction: a few hundredths of a second.
SOURCE_BATCH_MESSAGES: Final = 512
SOURCE_BATCH_BYTES: Final = MIB
#: Bytes of the messages that a source reads at once, about: as many as the mean size of the last ones allows.
SOURCE_READ_BYTES: Final = 8 * MIB
#: Partitions of a source; characters of an offset, or of a rule of its mapping; and of the name of its group.
SOURCE_PARTITIONS_MAX: Final = 10_000
SOURCE_VALUE_CHARS_MAX: Final = 1_000
SOURCE_GROUP_CHARS_MAX: Final = 200

# --- jobs -----------------------------------------------------------------------------------------------------------
#: Default and maximum number of threads that run jobs.
WORKERS: Final = 4
WORKERS_MAX: Final = 1_000
#: Nice value of threads that run jobs or build indexes, so that searches and writes go first. Not higher, because such
#: a thread also holds the interpreter lock, and while it waits for a core with the lock, all others wait. On a busy
#: machine during a rebuild, a write at p99 took 390 ms with 10, and 70 ms with 4 or 0.
JOBS_NICE: Final = 4
#: Jobs that take no longer than a commit, and are claimed together.
JOBS_BRIEF: Final = 32
#: Jobs of one request: ids to wait for, to cancel, to come after.
JOB_IDS_MAX: Final = 1_000
#: Jobs of one page of a list.
JOBS_PAGE: Final = 500
#: Bytes of a job's params as JSON: they are read with every list.
JOB_PARAMS_BYTES_MAX: Final = 64 * KIB
#: Lines of one job's log; later ones are only counted.
JOB_LINES: Final = 1_000
#: A priority is between minus and plus this (inclusive).
PRIORITY_MAX: Final = 100
#: Seconds that a job may be delayed, or take: ten years.
JOB_SECONDS_MAX: Final = 10 * 366 * 86_400
#: Characters of a unique key or a lock.
JOB_KEY_CHARS_MAX: Final = 200
#: Missed due times of one schedule that are made up for, and pending jobs of one schedule.
SCHEDULE_MISSED_MAX: Final = 100
#: Default age and number of completed and cancelled jobs that a prune job keeps.
JOBS_KEPT_S: Final = 7 * 86_400
JOBS_KEPT: Final = 10_000
#: Documents of one step of an export, with their texts and vectors.
EXPORT_DOCUMENTS: Final = 256
#: Pages of one step of a backup: 4 MiB.
BACKUP_PAGES: Final = 512
#: Documents and bytes of one step of an ingest job: a few hundredths of a second.
STEP_DOCUMENTS: Final = 512
STEP_BYTES: Final = 4 * MIB
#: Bytes of spooled input of background ingest jobs that came through pipes, over all jobs; and disk space that spooling
#: leaves free, so that the input can be written to the store.
SPOOL_BYTES_MAX: Final = 16 * 1024 * MIB
SPOOL_FREE_BYTES_MIN: Final = 256 * MIB
#: Documents of one step of a reembed, and documents that may be embedded in the transaction that begins its switch: a
#: few hundredths of a second, in which writes wait.
REEMBED_DOCUMENTS: Final = 256
REEMBED_AT_SWITCH: Final = 256
#: Chunks that one transaction of the switch removes and adds: a few hundredths of a second.
REEMBED_SWITCH_CHUNKS: Final = 256
#: Documents that the first attempt to begin a switch may embed with a slow embedder; twice as many with each attempt.
REEMBED_AT_SWITCH_SLOW: Final = 16
#: Rows of the log, and of documents, that one step of a verify checks.
VERIFY_ROWS: Final = 5_000
#: Problems that a verify reports; more are only counted.
PROBLEMS_REPORTED: Final = 100
#: Minimum interval between reports of progress to a client that waits for jobs.
JOBS_EVERY_S: Final = 0.05
#: Chunks of one step of the second stage: with a slow embedder about a second until they are found by its vectors.
SECOND_STAGE_TEXTS: Final = 64
#: How long a search waits for the vector of a second embedder, before it goes on without; and how long after such a
#: failure searches do not wait for that embedder.
SECOND_QUERY_S: Final = 2.0
SECOND_QUERY_AGAIN_S: Final = 5.0
#: Texts of one message to a worker that embeds: 256 KiB of vectors, and with a slow embedder some seconds.
EMBED_TEXTS: Final = 256
#: Fewer texts than this are embedded in the daemon's own processes: a broker would take longer than they do, and a
#: one-line write does not wait behind the messages of a bulk load.
EMBED_TEXTS_MIN: Final = 16
#: Batches of one request or job that are with workers at once: enough for 16 workers.
EMBED_AHEAD: Final = 32
#: Titles whose vectors are kept: about 10 MB.
TITLE_VECTORS_MAX: Final = 10_000
#: Bytes of the cache of query vectors: some thousands of queries.
QUERY_VECTORS_BYTES: Final = 16 * MIB
#: The same for a request of ingest, whose batches have two messages each.
INGEST_AHEAD: Final = 16
#: Messages with workers: these for each worker that has answered lately, so that none waits for the next, and some more
#: for workers that have just started; never more than EXECUTOR_SENT_MAX.
EXECUTOR_SENT_PER_WORKER: Final = 2
EXECUTOR_SENT_SPARE: Final = 4
EXECUTOR_SENT_MAX: Final = 256
#: How long a worker that has answered counts as present.
EXECUTOR_PRESENT_S: Final = 60.0
#: Default and maximum of how long a message may wait for its answer.
EXECUTOR_TIMEOUT_S: Final = 30.0
EXECUTOR_TIMEOUT_S_MAX: Final = 86_400
#: How often a message may be sent: again when the broker was lost, which may have lost it.
EXECUTOR_SENDS_MAX: Final = 3
#: A call to a broker: to connect, to send.
EXECUTOR_CALL_S: Final = 5.0
#: The longest pause before a broker that cannot be reached is tried again.
EXECUTOR_RECONNECT_S_MAX: Final = 5.0
#: Pings while no worker answers, if there is work: how often, and how long one is of use.
EXECUTOR_PING_S: Final = 10.0
EXECUTOR_PING_EXPIRES_S: Final = 60.0
#: How long an answer waits for its daemon. It is of no use to another one.
EXECUTOR_ANSWER_EXPIRES_S: Final = 60.0
#: Bytes of a file with a URL.
URL_BYTES_MAX: Final = 4 * KIB
#: Child processes that embed; each holds a model in memory.
EXECUTOR_PROCESSES_MAX: Final = 64
#: How long such a process may take for a batch, before it is killed, and how long it is kept without work.
LOCAL_EMBED_S: Final = 600.0
LOCAL_IDLE_S: Final = 300.0
#: How long it may take to start.
LOCAL_START_S: Final = 60.0
#: Default lease of a worker outside the daemon: how long it holds a job after its last message; and the bounds.
LEASE_S: Final = 30.0
LEASE_S_MIN: Final = 0.5
LEASE_S_MAX: Final = 3_600.0
#: How long a worker's claim waits for a job: then the worker claims again, and shows that it is alive.
CLAIM_WAIT_S: Final = 60.0
#: A worker's name is typed by people and appears in lists.
WORKER_NAME_CHARS_MAX: Final = 128
#: Bytes of a checkpoint or a result of a worker outside the daemon, as JSON: they are read with every list.
JOB_CHECKPOINT_BYTES_MAX: Final = 64 * KIB
#: Texts and characters of one embedding task: some seconds of a slow embedder, and a frame of at most a few MiB.
TASK_TEXTS: Final = 256
TASK_CHARS: Final = 1_000_000
#: How long a worker may work on one task, however many heartbeats it sends: an embedder that hangs must not keep it.
TASK_S_MAX: Final = 900.0
#: Claims of a task that may fail before the daemon embeds it itself.
TASK_FAILURES_MAX: Final = 3
#: Batches of tasks that a job keeps in flight: they are in memory, with their vectors.
TASK_BATCHES_MAX: Final = 64
#: How long a worker counts as present after its last message: from one task to the next claim, over a slow network.
WORKER_PRESENT_S: Final = 3.0
#: Embedders that a worker names in its claim.
WORKER_EMBEDDERS_MAX: Final = 1_000
#: Characters of a line that a worker outside the daemon sends for a job's log.
JOB_LINE_CHARS_MAX: Final = 2_000
#: How long a cancel waits for the current step before it answers that the job will be cancelled.
CANCEL_WAIT_S: Final = 5.0
#: Stopping: how long the current steps of jobs may take.
JOBS_STOP_S: Final = 10.0

# --- the store ------------------------------------------------------------------------------------------------------
#: Rows of one group commit. A larger bound saves fsyncs, and makes the first write of a group wait longer.
TRANSACTION_ROWS_MAX: Final = 1_024
#: Pages of the write-ahead log that trigger a checkpoint: 512 x 8 KiB = 4 MB, because all writes wait for it. It takes
#: 10 to 20 ms; with 32 MB it took 0.2 to 0.4 s, and a bulk load took as long in total.
WAL_PAGES: Final = 512
#: Pages from which a checkpoint waits for readers, so that the log can restart; and pages between two such attempts.
WAL_PAGES_OVERDUE: Final = 16_000
WAL_PAGES_BETWEEN: Final = 2_000
#: Bytes that the file is allocated ahead of its need: few calls, and little waste.
ALLOCATED_AHEAD_BYTES: Final = MIB
#: How often the writer tries to truncate a log that is longer than WAL_PAGES while it is idle.
WAL_LOOK_S: Final = 1.0
#: How often, under load, the writer waits for readers so that the file can be truncated.
SHRINK_LOOK_S: Final = 10.0
#: How long the writer waits for readers when the log must restart, and any connection for another program's lock.
CHECKPOINT_WAIT_MS: Final = 20
LOCK_WAIT_MS: Final = 5_000
#: A file that is deleted when the disk is full, so that deletes and cancels still have space; and how often the daemon
#: tries to restore it.
RESERVE_BYTES: Final = 4 * MIB
RESERVE_LOOK_S: Final = 10.0
#: The reserve is written in pieces, because a part of it is useful too.
RESERVE_PIECE_BYTES: Final = 64 * KIB
#: Bytes of the reserve that are freed at once.
RESERVE_GIVEN_BYTES: Final = MIB
#: How often an idle writer checks that the store's files still exist; every commit checks too.
STORE_LOOK_S: Final = 5.0
#: If the machine's clock is set back by at most this much, as NTP does, times in the log stand still until the clock
#: catches up. Beyond it, the clock was wrong before, and the log follows it back.
CLOCK_BACK_S: Final = 5.0
#: SQLite's page caches of the writer and of each reader; the system's page cache comes on top.
WRITER_CACHE_KIB: Final = 32 * KIB
READER_CACHE_KIB: Final = 4 * KIB

# --- threads and times ----------------------------------------------------------------------------------------------
#: Threads of the batch executor that answers searches: one, unless it is stuck.
BATCH_EXECUTOR_THREADS: Final = 8
#: If a batch of searches takes longer, another thread begins with the searches that have arrived since.
BATCH_STUCK_S: Final = 0.02
#: Threads for full-text searches.
SEARCHERS: Final = 4
#: Threads that answer reads; more would only queue for the interpreter lock.
READERS: Final = 4
#: Threads that read the log for watchers that catch up; one more reads new commits.
FOLLOWERS: Final = 2
#: Threads that validate, chunk and embed incoming documents; one more processes small ones.
PREPARERS: Final = 2
#: Threads that the indexes of all libraries share.
INDEX_THREADS: Final = 2
#: Address space below which the daemon does not start: the native libraries take most of it, and crash with less.
ADDRESS_SPACE_BYTES_MIN: Final = 768 * MIB
#: Size from which malloc maps an allocation separately (mmap): blocks of vectors and the arrays of a graph.
ALLOCATED_APART_BYTES: Final = MIB
#: Queries that an index answers in one turn, so that the writes in its mailbox do not wait long.
SEARCHES_A_TURN: Final = 64
#: Number of waiting searches from which they are spread over the cores; with fewer, waking other threads costs more.
SEARCHES_SHARED: Final = 4
#: Rows of one block of a flat index: growth never copies existing rows, and a block of 256 floats is 16 MB.
FLAT_BLOCK_ROWS: Final = 16_384
#: Stopping: how long requests in flight may take before they are aborted.
DRAIN_S: Final = 10.0
#: Starting: how long `vec` waits until the daemon that it started is ready.
START_S: Final = 30.0
#: How long `vec` waits for another `vec` that starts a daemon: until an old daemon has stopped and the new one started.
LAUNCH_S: Final = 60.0
#: How long a wait for another process takes before it is reported.
NOTICE_S: Final = 5.0
#: Stopping: how long `vec` waits until the daemon has closed its store.
STOP_S: Final = 30.0
#: How often the daemon checks that its socket file still exists, and how long a client waits for a new one.
SOCKET_LOOK_S: Final = 1.0
REBIND_S: Final = 5.0
#: How long a connection may wait in the daemon's listen backlog.
DIAL_S: Final = 5.0
#: How long a client waits for the daemon's hello.
HELLO_S: Final = 10.0
#: Silence after which a waiting client checks that the daemon is alive. It is longer than a heartbeat, so that an idle
#: watch does not check.
SILENCE_S: Final = HEARTBEAT_S + 1
#: How long this check waits for an answer.
PROBE_S: Final = 5.0
#: TCP keepalive of a client's WebSocket, which finds a host that is gone: the seconds without data before the first
#: check, the seconds between checks, and the unanswered checks that end the connection: half a minute in all.
KEEPALIVE_IDLE_S: Final = 15
KEEPALIVE_EVERY_S: Final = 5
KEEPALIVE_TRIES: Final = 3

# --- the gateway: who may, and what a hostile client may cost ---------------------------------------------------------
#: Keys of one instance, and bytes of their file: every request that presents a key finds it in memory.
KEYS_MAX: Final = 1_000
KEYS_BYTES_MAX: Final = 4 * MIB
#: A key's name is typed by people and appears in logs.
KEY_NAME_CHARS_MAX: Final = 64
#: How often the gateway looks for streams and WebSockets whose key has expired or was revoked, and ends them.
KEYS_LOOK_S: Final = 1.0
#: How long a ticket may be used, once: a page requests it and then opens its stream at once.
TICKET_S: Final = 30.0
#: Unused tickets, of all keys and of one: each takes a few hundred bytes until it expires.
TICKETS_MAX: Final = 10_000
TICKETS_OF_ONE_MAX: Final = 1_000
#: Seconds for which a browser may remember the answer to a CORS preflight.
PREFLIGHT_S: Final = 600
#: Names in an X-Forwarded-For header: one per proxy.
FORWARDED_MAX: Final = 20
#: The request line and the headers, and the number of headers. A cursor, a filter or a token takes a few KB; larger
#: input goes into a body.
HEAD_BYTES_MAX: Final = 64 * KIB
HEADERS_MAX: Final = 100
#: How long a client may take from its first byte, or its connection, to the end of its headers, and a TLS handshake.
HEAD_S: Final = 10.0
#: Requests that a client may send before the first is answered. Few clients do; the others wait in the kernel.
PIPELINE_MAX: Final = 16
#: Bytes of the JSON bodies that are being received or handled, over all requests; beyond it, requests get 429.
BODIES_BYTES_MAX: Final = 128 * MIB
#: A JSON body must arrive at FRAME_BYTES_S_MIN, after this time.
BODY_S: Final = 10.0
#: What a client may still send, and how long, after its request was answered without reading all of it. Without this, a
#: client that is still sending gets a reset and never sees the answer.
LINGER_BYTES: Final = 4 * MIB
LINGER_S: Final = 5.0
#: How long a connection that is closed may take to deliver its last bytes.
CLOSE_S: Final = 10.0
#: TCP connections at once. Each costs about 20 KiB, and one file descriptor, and up to one more to the daemon.
HTTP_CONNECTIONS_MAX: Final = 8_192
#: The largest value of a numeric setting of the gateway.
HTTP_NUMBER_MAX: Final = 1_000_000
#: Descriptors of the gateway's own: listeners, log, and the pool of connections to the daemon.
HTTP_OWN_DESCRIPTORS: Final = 64
#: Connections of one address, except of this machine and of trusted proxies: an office behind one address, with a few
#: streams for each person.
CONNECTIONS_OF_ADDRESS_MAX: Final = 512
#: Requests, streams and WebSockets of one key that are open at once.
OPEN_OF_KEY_MAX: Final = 1_024
#: Estimated bytes of the values of a JSON body or message once it is parsed: 8 times the text, which is enough for
#: vectors of numbers of three characters. Short strings and empty lists would take over 20 times.
JSON_VALUES_BYTES_MAX: Final = 128 * MIB
#: Seconds after which a client that was refused for a limit should try again.
RETRY_AFTER_S: Final = 1
#: Fragments of one WebSocket message: a client that sends a stream of fragments sends messages instead.
FRAGMENTS_MAX: Final = 1_024
#: Bytes of a WebSocket's input that are parsed at once: a frame may take two bytes, and costs some hundred in memory.
FRAMES_AT_ONCE_BYTES: Final = 16 * KIB
#: Bytes of a certificate's or a key's file: a chain has a few KB.
TLS_FILE_BYTES_MAX: Final = MIB
#: How often the gateway checks whether the files of its certificate have changed: they are renewed every few weeks.
TLS_LOOK_S: Final = 10.0
# --- the gateway ----------------------------------------------------------------------------------------------------
#: Body of a request that is read as a whole: as much as a frame, so that its documents fit one request to the daemon.
HTTP_BODY_BYTES_MAX: Final = FRAME_BYTES_MAX
#: How long a connection without a request stays open: longer than proxies keep theirs (nginx: 60 s), so that they close
#: first and no request meets a closing connection.
HTTP_IDLE_S: Final = 75
#: How often an open WebSocket is pinged: proxies close connections that are silent for a minute.
WEBSOCKET_PING_S: Final = 20
#: How long uvicorn waits for connections to close after their streams have ended.
HTTP_CLOSE_S: Final = 2
#: How long the daemon's figures are kept for `/metrics`: several scrapers cost it no more than one.
METRICS_AGE_S: Final = 1.0
#: How long `/readyz` and `/metrics` wait for the daemon: less than the usual time-out of a scrape (10 s).
READY_S: Final = 2.0
#: Libraries, and consumers, that have metrics of their own: each costs its scraper a handful of time series.
METRICS_LABELS_MAX: Final = 100
#: Pages of the log that are read at once for streams that are behind, and the events and approximate bytes of one: a
#: client that never reads keeps one page in memory.
CATCH_UPS: Final = 16
CATCH_UP_EVENTS: Final = 256
CATCH_UP_BYTES: Final = 256 * KIB
#: How long a new stream waits for a daemon that is being restarted.
SUBSCRIBE_S: Final = 10.0
#: Bytes of a stream that are written at once: what waits for a slow client beside the transport's own buffer.
STREAM_PIECE_BYTES: Final = 32 * KIB
#: Milliseconds after which EventSource reconnects; and after an error that a reconnect does not remove.
STREAM_RETRY_MS: Final = 1_000
STREAM_RETRY_ERROR_MS: Final = 30_000
#: Stopping: how long a stream may take to send its last event.
STREAM_END_S: Final = 2.0
#: How long a request may wait for a job: proxies give up on an answer after 60 s.
HTTP_WAIT_S_MAX: Final = 50.0
#: Jobs of one list over HTTP, which is one JSON document.
HTTP_JOBS_MAX: Final = 1_000
