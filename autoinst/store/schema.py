"""The embedded store's tables, and how an older database becomes a newer one.

`job.n` only grows and is never used twice, so an exporter's cursor is one number: a job that replaces what was said
of it before (killed) gets a new one. Times are ns since the epoch, durations ns. Texts that repeat are numbers of
`name`, 0 for null (a byte less than null in an index, and usable in a primary key).
"""

from __future__ import annotations

APPLICATION_ID = 0x41494E53  # "AINS", PRAGMA application_id

_VERSION_1 = """
CREATE TABLE name(id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);

CREATE TABLE site(
  id INTEGER PRIMARY KEY, action INTEGER NOT NULL, class INTEGER NOT NULL, method INTEGER NOT NULL,
  namespace INTEGER NOT NULL, name INTEGER NOT NULL, rule INTEGER NOT NULL,
  UNIQUE(action, class, method, namespace, name, rule));

CREATE TABLE description(id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, data BLOB NOT NULL);

CREATE TABLE process(
  id INTEGER PRIMARY KEY, uid BLOB NOT NULL UNIQUE, pid INTEGER NOT NULL, host INTEGER NOT NULL,
  service INTEGER NOT NULL, environment INTEGER NOT NULL, revision INTEGER NOT NULL, description INTEGER,
  started INTEGER NOT NULL, first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL, ended INTEGER, how TEXT,
  status BLOB);
CREATE INDEX process_by_seen ON process(last_seen);
CREATE INDEX process_with_status ON process(ended) WHERE status IS NOT NULL;

CREATE TABLE job(
  n INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL, status INTEGER NOT NULL, start INTEGER NOT NULL,
  duration INTEGER, queue_time INTEGER, action INTEGER NOT NULL, site INTEGER NOT NULL, queue INTEGER NOT NULL,
  attempts INTEGER, process INTEGER NOT NULL, thread INTEGER NOT NULL, flags INTEGER NOT NULL, error INTEGER,
  job_id, details BLOB);
CREATE UNIQUE INDEX job_by_id ON job(id);
CREATE INDEX job_by_start ON job(start);
CREATE INDEX job_by_action ON job(action, start);
CREATE INDEX job_not_ok ON job(status, start) WHERE status <> 1;
CREATE INDEX job_by_error ON job(error, start) WHERE error IS NOT NULL;
CREATE INDEX job_by_job_id ON job(job_id) WHERE job_id IS NOT NULL;

CREATE TABLE minute(
  at INTEGER, action INTEGER, queue INTEGER, ok INTEGER NOT NULL, error INTEGER NOT NULL, ignored INTEGER NOT NULL,
  killed INTEGER NOT NULL, counted INTEGER NOT NULL, counted_errors INTEGER NOT NULL, sum INTEGER NOT NULL,
  max INTEGER NOT NULL, durations BLOB NOT NULL, queue_sum INTEGER NOT NULL, queue_times BLOB NOT NULL,
  PRIMARY KEY(at, action, queue)) WITHOUT ROWID;
CREATE TABLE hour(
  at INTEGER, action INTEGER, queue INTEGER, ok INTEGER NOT NULL, error INTEGER NOT NULL, ignored INTEGER NOT NULL,
  killed INTEGER NOT NULL, counted INTEGER NOT NULL, counted_errors INTEGER NOT NULL, sum INTEGER NOT NULL,
  max INTEGER NOT NULL, durations BLOB NOT NULL, queue_sum INTEGER NOT NULL, queue_times BLOB NOT NULL,
  PRIMARY KEY(at, action, queue)) WITHOUT ROWID;

CREATE TABLE error(
  id INTEGER PRIMARY KEY, fingerprint BLOB NOT NULL UNIQUE, class TEXT NOT NULL, message TEXT NOT NULL,
  action INTEGER NOT NULL, frames TEXT NOT NULL, count INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  last_job BLOB NOT NULL);
CREATE INDEX error_by_last ON error(last);
CREATE TABLE error_hour(at INTEGER, error INTEGER, count INTEGER NOT NULL, PRIMARY KEY(at, error)) WITHOUT ROWID;

CREATE TABLE overflow(
  arena BLOB, action INTEGER, count INTEGER NOT NULL, errors INTEGER NOT NULL, sum INTEGER NOT NULL,
  seen INTEGER NOT NULL, PRIMARY KEY(arena, action)) WITHOUT ROWID;

CREATE TABLE suspect(arena BLOB PRIMARY KEY, checksum INTEGER NOT NULL, since INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE problem(
  kind TEXT, detail TEXT, count INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  PRIMARY KEY(kind, detail)) WITHOUT ROWID;
CREATE TABLE cursor(exporter TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
"""

# Jobs of which no record is kept: `left_out` of those counted; the low halves of their ids, by arena, until their slots
# are free.
_VERSION_2 = """
ALTER TABLE minute ADD COLUMN left_out INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hour ADD COLUMN left_out INTEGER NOT NULL DEFAULT 0;
CREATE TABLE left_out(arena BLOB PRIMARY KEY, ids BLOB NOT NULL, seen INTEGER NOT NULL) WITHOUT ROWID
"""

# `overall` are the totals of all actions and queues in spans of 1, 10 or 60 minutes; `at` counts spans everywhere.
# `job.trace` is the trace a job belongs to where that is not its own: 16 bytes.
_VERSION_3 = """
ALTER TABLE job ADD COLUMN trace BLOB;
CREATE INDEX job_by_trace ON job(trace) WHERE trace IS NOT NULL;

CREATE TABLE ten(
  at INTEGER, action INTEGER, queue INTEGER, ok INTEGER NOT NULL, error INTEGER NOT NULL, ignored INTEGER NOT NULL,
  killed INTEGER NOT NULL, counted INTEGER NOT NULL, counted_errors INTEGER NOT NULL, sum INTEGER NOT NULL,
  max INTEGER NOT NULL, durations BLOB NOT NULL, queue_sum INTEGER NOT NULL, queue_times BLOB NOT NULL,
  left_out INTEGER NOT NULL,
  PRIMARY KEY(at, action, queue)) WITHOUT ROWID;
CREATE TABLE overall(
  minutes INTEGER, at INTEGER, ok INTEGER NOT NULL, error INTEGER NOT NULL, ignored INTEGER NOT NULL,
  killed INTEGER NOT NULL, counted INTEGER NOT NULL, counted_errors INTEGER NOT NULL, sum INTEGER NOT NULL,
  max INTEGER NOT NULL, durations BLOB NOT NULL, queue_sum INTEGER NOT NULL, queue_times BLOB NOT NULL,
  left_out INTEGER NOT NULL,
  PRIMARY KEY(minutes, at)) WITHOUT ROWID;
CREATE TABLE release_hour(
  at INTEGER, revision INTEGER, action INTEGER, ok INTEGER NOT NULL, error INTEGER NOT NULL, ignored INTEGER NOT NULL,
  killed INTEGER NOT NULL, counted INTEGER NOT NULL, counted_errors INTEGER NOT NULL, sum INTEGER NOT NULL,
  max INTEGER NOT NULL, durations BLOB NOT NULL, queue_sum INTEGER NOT NULL, queue_times BLOB NOT NULL,
  left_out INTEGER NOT NULL,
  PRIMARY KEY(at, revision, action)) WITHOUT ROWID;

CREATE TABLE deploy(
  revision INTEGER, service INTEGER, first INTEGER NOT NULL, PRIMARY KEY(revision, service)) WITHOUT ROWID;
CREATE INDEX deploy_by_first ON deploy(first);
INSERT INTO deploy SELECT revision, service, min(started) FROM process WHERE revision <> 0 GROUP BY revision, service;

CREATE TABLE statement(id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, name TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE event_hour(
  at INTEGER, action INTEGER, statement INTEGER, jobs INTEGER NOT NULL, count INTEGER NOT NULL, sum INTEGER NOT NULL,
  self INTEGER NOT NULL, max INTEGER NOT NULL, repeats INTEGER NOT NULL, worst BLOB NOT NULL,
  PRIMARY KEY(at, action, statement)) WITHOUT ROWID;

CREATE TABLE incident(
  error INTEGER PRIMARY KEY, state TEXT NOT NULL, changed INTEGER NOT NULL, count INTEGER NOT NULL) WITHOUT ROWID;
"""

# The durations of jobs that were only counted.
_VERSION_4 = """
ALTER TABLE overflow ADD COLUMN durations BLOB NOT NULL DEFAULT x''
"""

# Feeds of exporters in place of cursors, see store/feeds.py.
_VERSION_5 = """
DROP TABLE cursor;
CREATE TABLE feed(
  name TEXT PRIMARY KEY, n INTEGER NOT NULL, upto INTEGER, token TEXT, at INTEGER NOT NULL DEFAULT 0,
  since INTEGER NOT NULL DEFAULT 0, jobs INTEGER NOT NULL DEFAULT 0, posts INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0, parked INTEGER NOT NULL DEFAULT 0, rejected INTEGER NOT NULL DEFAULT 0,
  left_out INTEGER NOT NULL DEFAULT 0, missing INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT 'ok',
  detail TEXT, changed INTEGER NOT NULL DEFAULT 0, sent INTEGER) WITHOUT ROWID;
CREATE TABLE parked(
  feed TEXT, n INTEGER, at INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY(feed, n)) WITHOUT ROWID;
"""

# When the jobs of check-ins ran last (`since`: from when on they are expected). `total` are the totals of all time,
# which retention leaves alone, so that counters made of them never fall. What people are told by webhooks, and of
# which errors they have been told, see store/notices.py.
_VERSION_6 = """
CREATE TABLE check_in(
  identifier TEXT PRIMARY KEY, since INTEGER NOT NULL, started INTEGER, finished INTEGER, status INTEGER, job BLOB)
  WITHOUT ROWID;

CREATE TABLE total(
  action INTEGER, queue INTEGER, ok INTEGER NOT NULL, error INTEGER NOT NULL, ignored INTEGER NOT NULL,
  killed INTEGER NOT NULL, counted INTEGER NOT NULL, counted_errors INTEGER NOT NULL, sum INTEGER NOT NULL,
  max INTEGER NOT NULL, durations BLOB NOT NULL, queue_sum INTEGER NOT NULL, queue_times BLOB NOT NULL,
  left_out INTEGER NOT NULL,
  PRIMARY KEY(action, queue)) WITHOUT ROWID;

CREATE TABLE notice(
  n INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, subject TEXT NOT NULL, at INTEGER NOT NULL,
  data TEXT NOT NULL);
CREATE INDEX notice_by_subject ON notice(kind, subject, at);
CREATE TABLE error_told(
  fingerprint BLOB, revision INTEGER, at INTEGER NOT NULL, PRIMARY KEY(fingerprint, revision)) WITHOUT ROWID;
"""

# The script at index i brings a database of PRAGMA user_version i to version i + 1.
MIGRATIONS = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5, _VERSION_6)
VERSION = len(MIGRATIONS)
WITH_LEVELS = 3  # the first version that has the tables `ten` and `overall`
WITH_TOTAL = 6  # the first that has `total`
