-- The evidence of many nodes, as each of them shipped it. docs/audit.md says
-- what everything means.

CREATE TABLE audit_records (
    node         text        NOT NULL,
    -- The node's chain: it begins another when its file was damaged.
    chain        uuid        NOT NULL,
    sequence     bigint      NOT NULL,
    time         timestamptz NOT NULL,
    class        smallint    NOT NULL,
    -- The hash of the chain up to and with this record.
    hash         bytea       NOT NULL,
    -- The canonical record; absent where retention took it.
    body         text,
    -- SHA-256 of the body, where it is absent.
    digest       bytea,
    kind         text,
    sandbox      text,
    task         text,
    project      text,
    outcome      text,
    reason       text,
    address      inet,
    -- The labels of the name from last to first: a domain is a range of these.
    name_key     text COLLATE "C",
    -- A partitioned table can only be unique together with what it is partitioned
    -- by; a record's time never changes.
    PRIMARY KEY (node, chain, sequence, time)
) PARTITION BY RANGE (time);

CREATE INDEX audit_records_by_time    ON audit_records USING brin (time);
CREATE INDEX audit_records_by_sandbox ON audit_records (sandbox, time) WHERE sandbox IS NOT NULL;
CREATE INDEX audit_records_by_name    ON audit_records (name_key, time) WHERE name_key IS NOT NULL;
CREATE INDEX audit_records_by_address ON audit_records (address, time) WHERE address IS NOT NULL;

-- How far each chain has come: changed together with the records, so that each
-- of them is here exactly once, whatever fails in between.
CREATE TABLE audit_shipped (
    node     text   NOT NULL,
    chain    uuid   NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (node, chain)
);

CREATE TABLE audit_checkpoints (
    node text        NOT NULL,
    chain uuid       NOT NULL,
    size bigint      NOT NULL,
    note text        NOT NULL,
    PRIMARY KEY (node, chain, size)
);
