"""Every bound in the program, each with its reason. Units stand last in a name.

A bound that a person may want to move is a field of Settings whose default stands here.
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- the wire -------------------------------------------------------------------------------------------------------
#: One frame: 8,192 documents of 2 KB.
FRAME_BYTES_MAX: Final = 16 * MIB
#: What one request may take in memory when it is decoded. Text and vectors take a small multiple of their frame, and
#: what `vec ingest` sends in one, a fifth of this at most; a frame of nothing but empty maps would take 1.2 GiB.
REQUEST_BYTES_MAX: Final = 256 * MIB
#: Frames up to this size are decoded on the event loop, in a millisecond; if the backlog is full, only tiny ones.
FRAME_BYTES_AT_ONCE: Final = 64 * KIB
FRAME_BYTES_TINY: Final = 4 * KIB
#: Bytes of large frames (over FRAME_BYTES_AT_ONCE) that may be on their way at once, over all connections.
INCOMING_BYTES_MAX: Final = 128 * MIB
#: A frame arrives at least so fast, or its connection is ended: bytes a second, beyond the patience for a stalled peer.
FRAME_BYTES_S_MIN: Final = 64 * KIB
#: Seconds that a frame may take to arrive while others wait for its room.
FRAME_CROWDED_S: Final = 5.0
#: Items of one array or map in a message. msgpack allocates an array when it reads its header, and a hostile frame can
#: nest headers 1,024 deep: 16,384 slots keep the worst case at 128 MiB that is never touched.
ARRAY_ITEMS_MAX: Final = 16_384
#: Requests of one connection that have no answer yet, subscriptions not counted; past it the session stops reading.
UNANSWERED_MAX: Final = 64
#: Bytes that those requests take, decoded, per connection: two of the largest frames of text or vectors, one decoded
#: while one is worked on.
UNANSWERED_BYTES_MAX: Final = 2 * FRAME_BYTES_MAX
#: Bytes of unanswered requests, decoded, over all connections: what a thousand eager writers may cost together.
BACKLOG_BYTES_MAX: Final = 256 * MIB
#: Subscriptions and other streams of one connection.
STREAMS_MAX: Final = 1024
#: Bytes that may wait in a connection's send buffer before its streams pause and its requests are no longer read.
SEND_BUFFER_BYTES_MAX: Final = 256 * KIB
#: Answers, or pages of answers, that are read from the store at once, over all connections and for one: they are held
#: until they are in its send buffer, and one may be as large as a frame. More would only queue for the reading threads.
ANSWERS_AT_ONCE: Final = 8
CONNECTION_ANSWERS_AT_ONCE: Final = 2
#: Bytes in all send buffers together. Beyond it no more answers are made, and those who hold most of it and have read
#: nothing for a moment are ended, until there is room again.
UNREAD_BYTES_MAX: Final = 256 * MIB
UNREAD_CROWDED_S: Final = 1.0
#: How long a peer may leave its hello, half a frame, or our answers lying before its connection is ended.
STALL_S: Final = 60.0
#: Connections at once: each costs about 5 KB and a file descriptor.
CONNECTIONS_MAX: Final = 4096
#: File descriptors that the daemon needs beside its connections: a dozen of its own, two for each thread that reads the
#: store, some for jobs' files, one to accept a connection that is refused.
OWN_DESCRIPTORS: Final = 56
#: The same for each worker beyond WORKERS: two to read the store, two for its job's files.
WORKER_DESCRIPTORS: Final = 4
#: The listening queue; 1,000 watchers that reconnect at once should all get in.
LISTEN_BACKLOG: Final = 1024

#: Characters of a message, a hint or a detail in an error reply: enough to quote what was sent, and bounded whatever it
#: was.
ERROR_CHARS_MAX: Final = 1_000
#: The same for the errors of a batch's documents, of which there may be thousands: together they fit one frame.
BATCH_ERROR_CHARS_MAX: Final = 100
#: Errors of one batch up to which each may have ERROR_CHARS_MAX characters.
BATCH_ERRORS_WHOLE: Final = 500
#: Characters of a key of a map that is no document: the names of parameters.
KEY_CHARS_MAX: Final = 200
#: Seconds in a request, a hundred years: clocks and timers overflow far beyond it.
SECONDS_MAX: Final = 100 * 366 * 86_400
#: Types, or globs of types, that one watch names, and the characters of one: globs are compiled to patterns.
TYPES_MAX: Final = 100
TYPE_CHARS_MAX: Final = 64

# --- documents ------------------------------------------------------------------------------------------------------
#: Documents of one ingest request; more means a longer transaction, and others wait for it.
BATCH_DOCUMENTS_MAX: Final = 8_192
#: Chunks, and characters of their texts, that are written at once: a request with more is worked off in parts. A part
#: takes the writer a few hundredths of a second; a document that has more by itself is a part of its own.
PART_CHUNKS: Final = 512
PART_CHARS: Final = 512 * KIB
#: Preparing a part goes in steps of so many characters at most, some milliseconds each, and in slices of as many steps
#: as take so long: others wait for a slice at most.
PREPARE_SLICE_CHARS: Final = 8 * KIB
PREPARE_SLICE_S: Final = 0.01
#: What takes no longer than that, about a thousand characters, has a thread of its own.
PREPARE_SMALL_S: Final = 0.002
#: One line of NDJSON input: a large document with its vectors, and yet a bound on what a file without newlines costs.
LINE_BYTES_MAX: Final = 8 * MIB
#: An id is a key that people type and scripts pass on: a URL or a path. (It stands in each of its chunks' events.)
ID_BYTES_MAX: Final = 512
#: A title is a line.
TITLE_BYTES_MAX: Final = 4 * KIB
#: Metadata is read with every hit.
METADATA_BYTES_MAX: Final = 256 * KIB
#: How deep objects and lists may be nested in what is written as JSON: orjson's bound, the lowest of all parsers and
#: writers that metadata goes through (msgpack has 1,024, SQLite 1,000).
JSON_DEPTH_MAX: Final = 254
#: Levels around metadata, at most. An event with its document has four in a message or in a file of dead letters:
#: items, event, data, document; the others are for what will be.
ENVELOPE_DEPTH_MAX: Final = 14
#: So deep metadata may be nested, itself included, and still be written with everything around it.
METADATA_DEPTH_MAX: Final = JSON_DEPTH_MAX - ENVELOPE_DEPTH_MAX
#: Chunks of one document. Its events are never split over two frames: an update may take two for each chunk, of up to
#: 110 bytes and two or three times the id, which together stay under FRAME_BYTES_MAX.
DOCUMENT_CHUNKS_MAX: Final = 5_000
#: Components of a vector: the largest embedding models give 8,192 at most.
DIMENSION_MAX: Final = 16_384
#: A library's name is a path segment in a shell, a URL and a file name.
NAME_BYTES_MAX: Final = 128
#: Characters of a chunk: long enough for a thought, short enough that a mean of token vectors still means something.
CHUNK_CHARS: Final = 1_000
CHUNK_CHARS_MAX: Final = 100_000

# --- reading --------------------------------------------------------------------------------------------------------
#: Hits of one search.
HITS_MAX: Final = 1_000_000
#: Up to so many hits or documents are read and sent at once; more come as a stream of messages. Few, because a chunk
#: may be megabytes long.
PAGE_ITEMS: Final = 100
#: The same for whole documents.
PAGE_DOCUMENTS: Final = 16
#: Bytes of them from which on a page is full.
PAGE_BYTES: Final = MIB
#: Characters of hits that are read for searches which are answered together; the others read their own, one by one.
HITS_AT_ONCE_CHARS: Final = 8 * MIB
#: Characters of the hits that are kept in memory, and of one that is: some 30,000 of the usual size.
HITS_KEPT_CHARS: Final = 32 * MIB
HIT_CHARS_MAX: Final = 16 * KIB
#: How long an answer may go on reading the state that it began with, while the vacuum waits for it: somebody reads page
#: by page at a terminal. What it costs is the space of what is removed and trimmed meanwhile.
READ_VIEW_S: Final = 3_600.0
#: The same for an export job, which waits for nobody but the disk.
EXPORT_VIEW_S: Final = 86_400.0
#: Filters of one request, their characters together, and how deep their parentheses go: they are parsed by recursion.
FILTERS_MAX: Final = 100
FILTER_CHARS_MAX: Final = 100_000
#: Comparisons in the filters of one request (`in` is one, however long its list): each is a pass over a column. And the
#: fields that they name: each that is not in memory is read from all documents.
FILTER_TESTS_MAX: Final = 1_000
FILTER_FIELDS_MAX: Final = 100
FILTER_DEPTH_MAX: Final = 100
#: Characters that are parsed on the event loop; more take milliseconds, and are parsed off it.
FILTER_CHARS_AT_ONCE: Final = 2_000
#: Filters whose masks are kept; each takes a byte a document.
FILTER_MASKS_KEPT: Final = 32
#: Bytes of the columns of one library's fields, about; beyond it those that were used least recently are dropped.
FILTER_COLUMNS_BYTES: Final = 128 * MIB
#: Columns of one library, beyond which the same holds: every commit fills all of them.
FILTER_COLUMNS_MAX: Final = 500
#: Bytes of documents' metadata that one statement brings when columns are loaded, about, and documents at most: a few
#: milliseconds of the interpreter lock.
COLUMNS_PAGE_BYTES: Final = 256 * KIB
COLUMNS_PAGE_DOCUMENTS: Final = 1_024
#: Documents that may wait to be taken into the columns of a library whose filters nobody uses any more.
ATTRIBUTES_PENDING: Final = 20_000
#: Characters of a query: longer ones are documents.
QUERY_CHARS_MAX: Final = 100_000
#: Documents of one transaction of a delete: others are let in between.
DELETE_DOCUMENTS: Final = 500
#: The same on a full disk: what a transaction changes must fit into the reserve, and may be a page or two a document.
DELETE_DOCUMENTS_TIGHT: Final = 100
#: The effort of an approximate search; beyond it an exact one is cheaper.
EF_MAX: Final = 100_000
#: The recall that approximate searches keep unless a library or a search asks for another, and the lowest that can be
#: asked for: with less, a search is a guess. 1 is exact.
RECALL: Final = 0.98
RECALL_MIN: Final = 0.5
#: Hits of a search that explains them: people read those, and they come in one message.
EXPLAINED_MAX: Final = PAGE_ITEMS
#: Ids of one get or delete request.
IDS_MAX: Final = 10_000
#: Events of one frame, but for a document that has more by itself: those are never split.
EVENTS_PAGE: Final = 1_000
#: Bytes of documents in one message of a watch with payload, but for a document that has more by itself; and of that,
#: as much as fits a frame: beyond it, what does not fit is left out, and the event says so.
PAYLOAD_BYTES: Final = MIB
PAYLOAD_BYTES_MAX: Final = FRAME_BYTES_MAX - MIB
#: Bytes of encoded events that are kept for those who watch the same thing and are not quite at the head. Whoever is
#: further behind reads the store.
RING_BYTES: Final = 4 * MIB
#: The same for all views together; beyond it the largest rings give way. And bytes of events that are made for all
#: views at once: views that find no room are read by their watchers themselves, page by page.
RINGS_BYTES_MAX: Final = 64 * MIB
ROUND_BYTES_MAX: Final = 32 * MIB
#: Seconds of the processor that selecting for all views may take at once; the views with the costliest filters come
#: last, and those that find no time are read by their watchers themselves.
ROUND_S: Final = 0.05
#: A watch at the head hears at least so often how far the log has been read for it, unless set otherwise.
HEARTBEAT_S: Final = 5.0
#: Silence of so many heartbeats means that the daemon is dead or stopped.
HEARTBEATS_MISSED: Final = 6
#: After events were handed to all who watch, the next wait for as long as that took, but no longer than this: what
#: comes meanwhile goes together, so a thousand watchers leave half of the event loop's time to everybody else.
FEED_REST_S: Final = 0.05
#: Watchers that are woken at once, a few milliseconds of the event loop.
FEED_WAKES: Final = 64
#: Bytes that watchers who are woken at once send, about: one or two milliseconds.
FEED_WAKES_BYTES: Final = MIB
#: Rows that one step of the vacuum deletes, and pages that one gives back: others' writes go between two steps.
VACUUM_ROWS: Final = 2_000
VACUUM_PAGES: Final = 256
#: The same on a full disk, where the pages that a step changes must fit into the space of the write-ahead log.
VACUUM_ROWS_TIGHT: Final = 200
VACUUM_PAGES_TIGHT: Final = 32
#: How often the log is held against the settings of how much of it is kept.
RETENTION_EVERY_S: Final = 60.0
#: A consumer's name is typed by people and stands in lists.
CONSUMER_NAME_BYTES_MAX: Final = 128

# --- jobs -----------------------------------------------------------------------------------------------------------
#: Threads that work on jobs, unless the settings say otherwise; and how many one may ask for.
WORKERS: Final = 4
WORKERS_MAX: Final = 1_000
#: Threads that work on jobs, and those that build indexes, are as nice as that: searches and writes go first. Not much
#: nicer: such a thread also holds the interpreter lock, and while it waits for a core with that, all others wait.
#: Beside a busy machine and a rebuild, a write at p99 took 390 ms with 10, and 70 with 4 or 0.
JOBS_NICE: Final = 4
#: Jobs that take no longer than a commit and are claimed together.
JOBS_BRIEF: Final = 32
#: Jobs of one request: ids to wait for, to cancel, to come after.
JOB_IDS_MAX: Final = 1_000
#: Jobs of one page of a list.
JOBS_PAGE: Final = 500
#: Bytes of a job's params as JSON: they are read with every list.
JOB_PARAMS_BYTES_MAX: Final = 64 * KIB
#: Lines of one job's log; what comes behind them is only counted.
JOB_LINES: Final = 1_000
#: A priority is from minus to plus this.
PRIORITY_MAX: Final = 100
#: Seconds that a job may be delayed, or take: ten years.
JOB_SECONDS_MAX: Final = 10 * 366 * 86_400
#: Characters of a unique key or a lock.
JOB_KEY_CHARS_MAX: Final = 200
#: Missed times of one schedule that are made up for, and jobs of one that may wait.
SCHEDULE_MISSED_MAX: Final = 100
#: Jobs that completed or were cancelled are kept so long, and so many of them, unless a prune job says otherwise.
JOBS_KEPT_S: Final = 7 * 86_400
JOBS_KEPT: Final = 10_000
#: Documents of one step of an export, with their texts and vectors.
EXPORT_DOCUMENTS: Final = 256
#: Pages of one step of a backup: 4 MiB.
BACKUP_PAGES: Final = 512
#: Documents and bytes of one step of an ingest job: a few hundredths of a second.
STEP_DOCUMENTS: Final = 512
STEP_BYTES: Final = 4 * MIB
#: Bytes of the input of background ingest jobs that came through pipes and is put aside until it is written, over all
#: jobs; and how much of the disk is left free by it, so that it can be written at all.
SPOOL_BYTES_MAX: Final = 16 * 1024 * MIB
SPOOL_FREE_BYTES_MIN: Final = 256 * MIB
#: Documents of one step of a reembed, and those that may be made while everybody waits for its switch: a tenth of a
#: second.
REEMBED_DOCUMENTS: Final = 256
REEMBED_AT_SWITCH: Final = 2_000
#: Rows of the log, and of documents, that one step of a verify looks at.
VERIFY_ROWS: Final = 5_000
#: Problems that a verify tells; more are only counted.
PROBLEMS_TOLD: Final = 100
#: Who waits for jobs is not told of their progress more often.
JOBS_EVERY_S: Final = 0.05
#: A worker outside the daemon holds a job for so long after it was last heard of, unless it asks for another time; and
#: the bounds of that.
LEASE_S: Final = 30.0
LEASE_S_MIN: Final = 0.5
LEASE_S_MAX: Final = 3_600.0
#: How long a worker's claim waits for a job, at most: behind it the worker shows that it is still there.
CLAIM_WAIT_S: Final = 60.0
#: A worker's name is typed by people and stands in lists.
WORKER_NAME_CHARS_MAX: Final = 128
#: Bytes of a checkpoint or a result of a worker outside the daemon, as JSON: they are read with every list.
JOB_CHECKPOINT_BYTES_MAX: Final = 64 * KIB
#: Characters of a line in a job's log that a worker outside the daemon sends.
JOB_LINE_CHARS_MAX: Final = 2_000
#: How long a cancel waits for the step that is being made before it answers that the job will be cancelled.
CANCEL_WAIT_S: Final = 5.0
#: Stopping: how long the steps that are being made may take.
JOBS_STOP_S: Final = 10.0

# --- the store ------------------------------------------------------------------------------------------------------
#: Rows that one transaction gathers from waiting writers. Larger saves fsyncs, and makes the first of them wait longer.
TRANSACTION_ROWS_MAX: Final = 1_024
#: Pages in the write-ahead log before it is copied back: 512 x 8 KiB = 4 MB, because all who write wait for that. It
#: takes a hundredth of a second or two; 32 MB took 0.2 to 0.4 s, and the ingest of much took as long in all.
WAL_PAGES: Final = 512
#: Pages from which on readers are waited for, so that the log can begin anew; and how seldom that is tried.
WAL_PAGES_OVERDUE: Final = 16_000
WAL_PAGES_BETWEEN: Final = 2_000
#: The file is allocated so far ahead of what it needs: often enough not to be felt, and no large waste.
ALLOCATED_AHEAD_BYTES: Final = MIB
#: How often a log that is longer than that is tried to be cut back while nothing is written.
WAL_LOOK_S: Final = 1.0
#: How often, while much is written, the writer waits for readers so that the file can be shortened.
SHRINK_LOOK_S: Final = 10.0
#: How long the writer waits for readers when the log must be restarted, and anybody for another program's lock.
CHECKPOINT_WAIT_MS: Final = 20
LOCK_WAIT_MS: Final = 5_000
#: A file that is given up when the disk is full, so that deletes and cancels still have room; and how often room is
#: looked for to make it anew.
RESERVE_BYTES: Final = 4 * MIB
RESERVE_LOOK_S: Final = 10.0
#: It is written in pieces: a part of it is better than nothing.
RESERVE_PIECE_BYTES: Final = 64 * KIB
#: As much of it is given up at once.
RESERVE_GIVEN_BYTES: Final = MIB
#: How often the writer looks whether the store's files are still there while nobody writes; a commit always looks.
STORE_LOOK_S: Final = 5.0
#: Times in the log stand still while the machine's clock is set back by so much at most, as NTP does; beyond it, the
#: clock was wrong before, and the log follows it back.
CLOCK_BACK_S: Final = 5.0
#: SQLite's page cache of the writer, and of each reader; behind both stands the system's own.
WRITER_CACHE_KIB: Final = 32 * KIB
READER_CACHE_KIB: Final = 4 * KIB

# --- threads and times ----------------------------------------------------------------------------------------------
#: Threads of the batch executor that answers searches: one, unless it is stuck.
BATCH_EXECUTOR_THREADS: Final = 8
#: A batch of searches that takes longer does not delay what has come since: another thread begins on that.
BATCH_STUCK_S: Final = 0.02
#: Threads that look through texts.
SEARCHERS: Final = 4
#: Threads that answer reads; more only queue for the interpreter lock.
READERS: Final = 4
#: Threads that read the log for watchers who catch up; one more reads what commits bring.
FOLLOWERS: Final = 2
#: Threads that validate, chunk and embed incoming documents; one more does so for small ones.
PREPARERS: Final = 2
#: Threads that all libraries' index strands share.
INDEX_THREADS: Final = 2
#: Address space below which the daemon does not start: the native libraries take most of it, and crash with less.
ADDRESS_SPACE_BYTES_MIN: Final = 768 * MIB
#: Memory from this size on is mapped by itself: blocks of vectors and the arrays of a graph.
ALLOCATED_APART_BYTES: Final = MIB
#: As many queries as one turn of an index answers, so that writes left meanwhile do not wait long.
SEARCHES_A_TURN: Final = 64
#: From so many waiting searches on, they are spread over the cores; below, waking the other threads costs more.
SEARCHES_SHARED: Final = 4
#: Rows of one block of a flat index: growing never copies what is there, and a block of 256 floats is 16 MB.
FLAT_BLOCK_ROWS: Final = 16_384
#: Stopping: how long requests in flight may take to finish before they are cut off.
DRAIN_S: Final = 10.0
#: Starting: how long `vec` waits for the daemon it started to say that it is ready.
START_S: Final = 30.0
#: How long `vec` waits for another one that is starting a daemon: for a daemon that stops, and then for the new one.
LAUNCH_S: Final = 60.0
#: A wait for another process is reported after so long.
NOTICE_S: Final = 5.0
#: A stop: how long `vec` waits until the daemon has closed its store.
STOP_S: Final = 30.0
#: How often the daemon looks whether its socket file is still there, and how long a client waits for a new one.
SOCKET_LOOK_S: Final = 1.0
REBIND_S: Final = 5.0
#: How long a connection may wait in the daemon's queue.
DIAL_S: Final = 5.0
#: The client's wait for the daemon's hello.
HELLO_S: Final = 10.0
#: After so long without a byte, a client that waits checks whether the daemon is still at work. It is longer than a
#: heartbeat, so that an idle watch does not check.
SILENCE_S: Final = HEARTBEAT_S + 1
#: How long that check waits for an answer.
PROBE_S: Final = 5.0
