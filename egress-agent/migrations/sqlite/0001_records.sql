-- One row per record of `egress_agent::model::Record`; docs/audit.md says what
-- the columns mean. Words are stored as words, so that the evidence can be read
-- with nothing but the sqlite3 shell.

-- "egrs": tells the file from other programs' databases.
PRAGMA application_id = 1701278323;

CREATE TABLE records (
    -- AUTOINCREMENT never uses a number twice: a deleted row leaves a gap.
    sequence     INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Microseconds since 1970-01-01T00:00:00Z.
    time         INTEGER NOT NULL,
    kind         TEXT    NOT NULL,
    sandbox_id   INTEGER,
    sandbox      TEXT,
    policy       TEXT,
    process      INTEGER,
    command      TEXT,
    user         INTEGER,
    hook         TEXT,
    address      TEXT,
    -- 16 bytes, IPv4 as ::ffff:a.b.c.d: a network is a range of these.
    address_key  BLOB,
    port         INTEGER,
    protocol     TEXT,
    name         TEXT,
    -- The labels of the name from last to first: a domain is a range of these.
    name_key     TEXT,
    query_type   TEXT,
    rule_file    TEXT,
    rule_line    INTEGER,
    rule_text    TEXT,
    outcome      TEXT,
    reason       TEXT,
    -- How many alike the row stands for.
    count        INTEGER NOT NULL CHECK (count >= 1),
    detail       TEXT
) STRICT;

CREATE INDEX records_by_time    ON records (time);
CREATE INDEX records_by_sandbox ON records (sandbox, time);
CREATE INDEX records_by_outcome ON records (outcome, time);
CREATE INDEX records_by_address ON records (address_key, time) WHERE address_key IS NOT NULL;
CREATE INDEX records_by_name    ON records (name_key, time) WHERE name_key IS NOT NULL;
