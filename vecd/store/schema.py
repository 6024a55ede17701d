"""The SQL schema, as append-only numbered migrations: a released one is never edited, a change is a new one.

The file's `user_version` is the number of the last applied migration. Each migration runs in one transaction with it.

The tables:

- `log` has one row: the log's id (generated with the store, or when a backup of it is first opened), and the counters,
  which only grow.
- `documents` holds versions of documents and is immutable except for `removed_seq`: an update writes a new row and
  marks the old one with the seq that removed it. A row's key is the label of its first chunk, so its chunks have the
  labels `label … label + chunks - 1`. A version is current while `removed_seq` is null and its library is not deleted.
- `chunks` is immutable: text and vector (little-endian float32, unchanged from the request) by label. Both tables have
  checksums of their rows' contents (checksums.py).
- `second_vectors` holds the vectors of the second stage (second_stage.py), by the label of the chunk. Those of a
  library count up to its `second_label`; later ones may be of an embedder that it had before.
- `events` holds one row per change. A document's row expands to its own event and those of its chunks (events.py), so
  it covers several seqs, and `seq` is the first.
- `events` reaches back to the log's `horizon`. Older rows, and the document versions that only they refer to, are
  deleted in steps (retention.py). The rows of deleted libraries are kept: library ids are never reused.
- `clock_marks` record the log's head and the time whenever the machine's clock was found to be set back.
- `consumers` are named cursors that the daemon stores for watchers.
- `jobs` holds a row per job in any state; `job_attempts` the history of each job, `job_lines` its log, `job_drafts` the
  drafts of a reembed, `job_waits` which jobs run after which, `job_pauses` the paused kinds ('' is all kinds).
  `params`, `checkpoint`, `result` and `error` are JSON. Job ids are never reused.
  An attempt outside the daemon has the name of its worker and the length of its lease. The end of the lease is not
  stored: the daemon measures it with its monotonic clock, and restarts it when the daemon starts (jobs/leases.py).
- `schedules` holds the cron schedules; `last_us` is the last due time that has been processed.
- `connectors` holds the relays, the sources and the syncs. A relay's position is the consumer `relay.<name>`;
  `connector_offsets` has that of a source, by the broker's partition. `dead_letters` are messages that a broker, or a
  library, refused.
- `sync_files` is what a sync knows of the files of its folder, written with their documents; `sync_runs` its last runs.
"""

from __future__ import annotations

import secrets

import apsw

from ..errors import Code, VecError

#: "vecd" in ASCII: distinguishes our files from other SQLite files, also for file(1).
APPLICATION_ID = 0x76656364

#: Smaller pages cost writes (tests/bench/ingest.py: 75,000 documents/s at 4 KiB, 92,000 at 8 KiB), larger ones reads.
PAGE_BYTES = 8192

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE log (
      one INTEGER PRIMARY KEY CHECK (one = 1),
      log_id TEXT NOT NULL,
      seq INTEGER NOT NULL,      -- the last seq given out
      label INTEGER NOT NULL,    -- the last label given out
      time_us INTEGER NOT NULL   -- the last event's time; the next is not before it
    ) STRICT;

    CREATE TABLE libraries (
      library_id INTEGER PRIMARY KEY,
      name TEXT NOT NULL,
      dimension INTEGER,         -- null until the first vector pins it
      metric TEXT NOT NULL,
      index_kind TEXT NOT NULL,
      embedder TEXT NOT NULL,
      chunk_chars INTEGER NOT NULL,
      documents INTEGER NOT NULL DEFAULT 0,
      chunks INTEGER NOT NULL DEFAULT 0,
      created_us INTEGER NOT NULL,
      deleted_seq INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX libraries_live ON libraries (name) WHERE deleted_seq IS NULL;

    CREATE TABLE documents (
      label INTEGER PRIMARY KEY,
      library_id INTEGER NOT NULL,
      id TEXT NOT NULL,
      title TEXT,
      metadata TEXT NOT NULL,    -- a JSON object
      digest BLOB NOT NULL,      -- of the content; the same digest again is no change
      chunks INTEGER NOT NULL,
      removed_seq INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX documents_live ON documents (library_id, id) WHERE removed_seq IS NULL;

    CREATE TABLE chunks (
      label INTEGER PRIMARY KEY,
      text TEXT,                 -- null where only a vector was given
      vector BLOB NOT NULL
    ) STRICT;

    CREATE TABLE events (
      seq INTEGER PRIMARY KEY,
      time_us INTEGER NOT NULL,
      type INTEGER NOT NULL,
      library_id INTEGER,
      label INTEGER,             -- the document's row as it is after the change
      prior INTEGER,             -- the document's row that the change replaced or removed
      data TEXT                  -- JSON, for events that are not about a document
    ) STRICT;
    """,
    """
    ALTER TABLE libraries ADD COLUMN index_parameters TEXT NOT NULL DEFAULT '{}';  -- a JSON object
    """,
    """
    ALTER TABLE log ADD COLUMN horizon INTEGER NOT NULL DEFAULT 0;     -- the last seq that was trimmed away
    ALTER TABLE log ADD COLUMN horizon_us INTEGER NOT NULL DEFAULT 0;  -- and its time
    CREATE INDEX documents_dead ON documents (removed_seq) WHERE removed_seq IS NOT NULL;
    CREATE TABLE consumers (
      name TEXT PRIMARY KEY,
      seq INTEGER NOT NULL,      -- the last event that it has done with, or the moment of the snapshot that it is in
      label INTEGER,             -- in a snapshot: the last document that it has done with
      created_us INTEGER NOT NULL,
      acked_us INTEGER           -- when it last said so; null: never
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE jobs (
      job_id INTEGER PRIMARY KEY AUTOINCREMENT,
      kind TEXT NOT NULL,
      params TEXT NOT NULL,
      library TEXT,
      priority INTEGER NOT NULL,
      state TEXT NOT NULL,
      ready_us INTEGER NOT NULL,          -- not before
      unique_key TEXT,
      lock_key TEXT,
      timeout_s REAL,
      schedule TEXT,
      cancelling INTEGER NOT NULL DEFAULT 0,
      waits INTEGER NOT NULL,             -- rows of job_waits
      attempt INTEGER NOT NULL DEFAULT 0, -- attempts begun
      failures INTEGER NOT NULL DEFAULT 0,
      crashes INTEGER NOT NULL DEFAULT 0, -- in a row, without a checkpoint
      steps INTEGER NOT NULL DEFAULT 0,   -- checkpoints made
      checkpoint TEXT,
      done INTEGER,
      total INTEGER,
      result TEXT,
      error TEXT,
      created_us INTEGER NOT NULL,
      started_us INTEGER,                 -- the last attempt
      ended_us INTEGER
    ) STRICT;
    CREATE INDEX jobs_by_state ON jobs (state, job_id);
    CREATE UNIQUE INDEX jobs_unique ON jobs (unique_key) WHERE unique_key IS NOT NULL
      AND state IN ('pending', 'running');

    CREATE TABLE job_attempts (
      job_id INTEGER NOT NULL,
      attempt INTEGER NOT NULL,
      started_us INTEGER NOT NULL,
      ended_us INTEGER,
      outcome TEXT,              -- null while it runs
      error TEXT,
      PRIMARY KEY (job_id, attempt)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE job_waits (
      parent_id INTEGER NOT NULL,
      job_id INTEGER NOT NULL,
      PRIMARY KEY (parent_id, job_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX job_waits_by_job ON job_waits (job_id);

    CREATE TABLE job_lines (
      job_id INTEGER NOT NULL,
      line INTEGER NOT NULL,     -- from 1
      time_us INTEGER NOT NULL,
      text TEXT NOT NULL,
      PRIMARY KEY (job_id, line)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE job_drafts (
      job_id INTEGER NOT NULL,
      label INTEGER NOT NULL,    -- the document's row that it was made of
      texts TEXT NOT NULL,       -- JSON, by chunk
      vectors BLOB NOT NULL,     -- one behind the other
      PRIMARY KEY (job_id, label)
    ) STRICT;

    CREATE TABLE job_pauses (kind TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;

    CREATE TABLE schedules (
      name TEXT PRIMARY KEY,
      cron TEXT NOT NULL,
      zone TEXT NOT NULL,        -- '' is the machine's
      missed TEXT NOT NULL,      -- skip, once or all
      job TEXT NOT NULL,         -- JSON: kind, params, library, priority, timeout_s
      created_us INTEGER NOT NULL,
      last_us INTEGER NOT NULL,  -- 0: it has not been looked at yet
      last_job INTEGER,
      error TEXT
    ) STRICT, WITHOUT ROWID;
    -- The daemon's own upkeep. Here and not at every start: what somebody removes stays away.
    INSERT INTO schedules VALUES
      ('upkeep.prune', '17 * * * *', '', 'once', '{"kind":"prune","params":{},"priority":-10}', 0, 0, NULL, NULL),
      ('upkeep.snapshot', '30 3 * * *', '', 'once', '{"kind":"snapshot","params":{},"priority":-10}', 0, 0, NULL, NULL),
      ('upkeep.vacuum', '45 3 * * *', '', 'once', '{"kind":"vacuum","params":{},"priority":-10}', 0, 0, NULL, NULL);
    """,
    """
    ALTER TABLE libraries ADD COLUMN recall REAL NOT NULL DEFAULT 0.98;        -- what approximate searches are to find
    ALTER TABLE libraries ADD COLUMN recall_missed INTEGER NOT NULL DEFAULT 0; -- 1: by the last index.recall event
    ALTER TABLE libraries ADD COLUMN language TEXT NOT NULL DEFAULT 'english'; -- of full text
    """,
    """
    ALTER TABLE jobs ADD COLUMN delay_us INTEGER; -- how far ahead ready_us was when it was set; null: not known
    ALTER TABLE chunks ADD COLUMN sums BLOB;       -- checksums.py; null in rows of earlier schemas
    ALTER TABLE documents ADD COLUMN sum INTEGER;  -- the same
    INSERT OR IGNORE INTO schedules VALUES -- somebody may have made one of that name
      ('upkeep.verify', '15 4 * * 0', '', 'once', '{"kind":"verify","params":{"mb_per_s":16},"priority":-10}', 0, 0,
       NULL, NULL);
    CREATE TABLE clock_marks (
      seq INTEGER PRIMARY KEY,   -- the log's head
      time_us INTEGER NOT NULL   -- when it was that, by a clock that is behind the times of the log
    ) STRICT;
    """,
    """
    ALTER TABLE jobs ADD COLUMN worker TEXT;       -- who makes the attempt, outside the daemon; null: the daemon
    ALTER TABLE jobs ADD COLUMN lease_s REAL;      -- how long this worker may be silent; null: it has no lease
    ALTER TABLE job_attempts ADD COLUMN worker TEXT;
    """,
    """
    CREATE TABLE connectors (
      direction TEXT NOT NULL,   -- relay or source
      name TEXT NOT NULL,
      definition TEXT NOT NULL,  -- JSON: vecd/connectors/definition.py, without what has a column
      paused INTEGER NOT NULL DEFAULT 0,
      generation INTEGER NOT NULL DEFAULT 1,  -- grows with each reset; a commit of an earlier one is refused
      created_us INTEGER NOT NULL,
      PRIMARY KEY (direction, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE connector_offsets (
      name TEXT NOT NULL,        -- of the source
      partition TEXT NOT NULL,   -- in the broker's form; '' if it has none
      offset TEXT NOT NULL,      -- of the last message that was applied, in the broker's form
      PRIMARY KEY (name, partition)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE dead_letters (
      letter_id INTEGER PRIMARY KEY AUTOINCREMENT,
      direction TEXT NOT NULL,
      name TEXT NOT NULL,
      position TEXT NOT NULL,    -- a relay's: the event's cursor; a source's: partition and offset
      time_us INTEGER NOT NULL,
      code TEXT NOT NULL,        -- a stable error code
      reason TEXT NOT NULL,
      attempts INTEGER NOT NULL,
      retrying INTEGER NOT NULL DEFAULT 0,  -- 1: somebody asked for another attempt
      about TEXT NOT NULL,       -- JSON: what the message has beside its body
      body BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX dead_letters_by_position ON dead_letters (direction, name, position);
    """,
    """
    ALTER TABLE libraries ADD COLUMN switch_job INTEGER; -- the reembed whose drafts replace the documents; null: none
    ALTER TABLE libraries ADD COLUMN embedder_label INTEGER NOT NULL DEFAULT 0; -- as of the last change of the embedder
    ALTER TABLE job_drafts ADD COLUMN present BLOB; -- new vectors of the present chunks; null: `vectors` are those
    -- Drafts of earlier schemas lack them: an unfinished reembed begins again.
    DELETE FROM job_drafts;
    UPDATE jobs SET checkpoint = NULL WHERE kind = 'reembed' AND state <> 'completed'
      AND checkpoint NOT GLOB '*"switched"*';
    """,
    """
    CREATE TABLE sync_files (
      name TEXT NOT NULL,          -- of the sync
      path BLOB NOT NULL,          -- relative to its folder; the name of a file need not be UTF-8
      library_id INTEGER NOT NULL, -- where its documents are; 0: nowhere yet
      stamp BLOB NOT NULL,         -- size, times and inode of the file that was read, in the form of vecd/sync
      digest BLOB NOT NULL,        -- of its content
      ids TEXT NOT NULL,           -- JSON: the ids of its documents
      reason TEXT,                 -- why it has none; null: it has
      PRIMARY KEY (name, path)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE sync_runs (
      name TEXT PRIMARY KEY,
      ended_us INTEGER NOT NULL,
      summary TEXT NOT NULL        -- JSON: counts
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE documents ADD COLUMN lines TEXT;  -- of a file: the line where each chunk begins, JSON; null: none
    ALTER TABLE job_drafts ADD COLUMN lines TEXT; -- the same
    ALTER TABLE libraries ADD COLUMN chunk_overlap INTEGER NOT NULL DEFAULT 0; -- characters
    ALTER TABLE libraries ADD COLUMN second TEXT;      -- the embedder of the second stage; null: there is none
    ALTER TABLE libraries ADD COLUMN second_dimension INTEGER;            -- null until its first vector
    ALTER TABLE libraries ADD COLUMN second_label INTEGER NOT NULL DEFAULT 0;  -- the last chunk that it has processed
    ALTER TABLE libraries ADD COLUMN second_chunks INTEGER NOT NULL DEFAULT 0; -- current chunks up to that one
    ALTER TABLE libraries ADD COLUMN second_generation INTEGER NOT NULL DEFAULT 0; -- grows with each change of `second`
    CREATE TABLE second_vectors (
      label INTEGER PRIMARY KEY, -- of the chunk
      digest BLOB NOT NULL,      -- of the embedder's name and of the text that was embedded
      vector BLOB,               -- little-endian float32; null: the embedder cannot embed the text
      sum INTEGER NOT NULL       -- CRC-32 of the vector
    ) STRICT;
    CREATE INDEX second_vectors_by_digest ON second_vectors (digest);
    ALTER TABLE libraries ADD COLUMN mapping TEXT NOT NULL DEFAULT '{}'; -- JSON: rules by which JSON becomes documents
    ALTER TABLE libraries ADD COLUMN former_names TEXT NOT NULL DEFAULT '[]'; -- JSON; those of no other library
    """,
    """
    ALTER TABLE libraries ADD COLUMN second_refused INTEGER NOT NULL DEFAULT 0; -- of second_chunks, without a vector
    UPDATE libraries SET second_refused = (
      SELECT count(*) FROM second_vectors CROSS JOIN documents ON documents.label =
        (SELECT label FROM documents WHERE label <= second_vectors.label ORDER BY label DESC LIMIT 1)
      WHERE vector IS NULL AND removed_seq IS NULL AND documents.library_id = libraries.library_id
        AND second_vectors.label <= second_label
    ) WHERE second IS NOT NULL;
    """,
)


#: The migration that drops the full-text tables: the full-text index is built in memory from the chunks.
_TEXT_DROPPED = 4


def _drop_text(db: apsw.Connection) -> None:
    """Drops the full-text tables of earlier schemas, one per library."""
    names = db.execute("SELECT name FROM sqlite_schema WHERE name GLOB 'text_[0-9]*' AND sql LIKE 'CREATE VIRTUAL%'")
    for (name,) in names.fetchall():
        db.execute(f'DROP TABLE "{name}"')


def migrate(db: apsw.Connection, path: str) -> None:
    """Migrates the file to the newest schema. Raises VecError `storage_failed` for a foreign or a newer file."""
    application, version = int(db.pragma("application_id") or 0), int(db.pragma("user_version") or 0)
    empty = not db.execute("SELECT EXISTS (SELECT 1 FROM sqlite_schema)").get
    if application != APPLICATION_ID and not (empty and application == 0):
        raise VecError(Code.STORAGE_FAILED, f"{path} is an SQLite file, but not a store of vecd")
    if version > len(MIGRATIONS):
        raise VecError(
            Code.STORAGE_FAILED,
            f"{path} has schema {version}, but this version of vecd supports schemas up to {len(MIGRATIONS)}",
            "it was written by a newer version: upgrade vecd",
        )
    for number in range(version, len(MIGRATIONS)):
        with db:
            if number == _TEXT_DROPPED:
                _drop_text(db)
            db.execute(MIGRATIONS[number])
            if number == 0:
                db.execute("INSERT INTO log VALUES (1, ?, 0, 0, 0)", (secrets.token_hex(8),))
                db.pragma("application_id", APPLICATION_ID)
            db.pragma("user_version", number + 1)
    # A backup has no log id: its log diverges from the original's here.
    if db.execute("SELECT log_id FROM log").get == "":
        db.execute("UPDATE log SET log_id = ?", (secrets.token_hex(8),))
        # The original may still run, with the same relays and sources: somebody has to say which of the two goes on.
        db.execute("UPDATE connectors SET paused = 1")
