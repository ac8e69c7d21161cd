-- The evidence of one node. docs/audit.md says what everything means, byte for
-- byte. A record is its body, a JSON text; the columns beside it repeat what is
-- looked for, and verification compares them with the body.

-- "egrs": tells the file from other programs' databases.
PRAGMA application_id = 1701278323;

CREATE TABLE records (
    -- The place in the chain, from 1, given by the writer and never twice.
    sequence     INTEGER PRIMARY KEY,
    -- Microseconds since 1970-01-01T00:00:00Z.
    time         INTEGER NOT NULL,
    -- How long it is kept, as a number.
    class        INTEGER NOT NULL,
    -- The hash of the chain up to and with this record.
    chain        BLOB    NOT NULL,
    -- The canonical record.
    body         TEXT    NOT NULL,
    kind         TEXT    NOT NULL,
    sandbox      TEXT,
    task         TEXT,
    project      TEXT,
    outcome      TEXT,
    reason       TEXT,
    -- 16 bytes, IPv4 as ::ffff:a.b.c.d: a network is a range of these.
    address_key  BLOB,
    -- The labels of the name from last to first: a domain is a range of these.
    name_key     TEXT
) STRICT;

CREATE INDEX records_by_time    ON records (time, class);
CREATE INDEX records_by_sandbox ON records (sandbox, time) WHERE sandbox IS NOT NULL;
-- Most records are flows and queries that were allowed: what is looked for by kind
-- or verdict is the rest, and only the rest pays for it.
CREATE INDEX records_by_kind    ON records (kind, time) WHERE kind <> 'flow' AND kind <> 'dns';
CREATE INDEX records_by_refusal ON records (outcome, time) WHERE outcome <> 'allow';
CREATE INDEX records_by_reason  ON records (reason, time) WHERE reason IS NOT NULL;
CREATE INDEX records_by_task    ON records (task, time) WHERE task IS NOT NULL;
CREATE INDEX records_by_project ON records (project, time) WHERE project IS NOT NULL;
CREATE INDEX records_by_address ON records (address_key, time) WHERE address_key IS NOT NULL;
CREATE INDEX records_by_name    ON records (name_key, time) WHERE name_key IS NOT NULL;

-- What retention left of records: enough to follow the chain over them.
CREATE TABLE erased (
    sequence INTEGER PRIMARY KEY,
    time     INTEGER NOT NULL,
    class    INTEGER NOT NULL,
    chain    BLOB    NOT NULL,
    -- SHA-256 of the body.
    digest   BLOB    NOT NULL
) STRICT;

-- What the node signed.
CREATE TABLE checkpoints (
    -- How many records it speaks for.
    size     INTEGER PRIMARY KEY,
    -- Microseconds since 1970-01-01T00:00:00Z.
    time     INTEGER NOT NULL,
    -- The signed note.
    note     TEXT    NOT NULL,
    -- The roots of the perfect subtrees of the Merkle tree, the largest first.
    frontier BLOB    NOT NULL
) STRICT;

-- Where the writer is: one row, changed together with the records.
CREATE TABLE head (
    only       INTEGER PRIMARY KEY CHECK (only = 1),
    -- The node's name.
    node       TEXT    NOT NULL,
    -- The chain's id, a UUID.
    chain_id   TEXT    NOT NULL,
    -- The last sequence number that was given.
    sequence   INTEGER NOT NULL,
    -- The hash of the chain up to there.
    chain      BLOB    NOT NULL,
    -- As in checkpoints, up to there.
    frontier   BLOB    NOT NULL,
    -- Decisions for which a record stands in the file, losses included.
    settled    INTEGER NOT NULL
) STRICT;
