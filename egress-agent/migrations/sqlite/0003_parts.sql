-- Destinations are looked for in parts of 65,536 records: what is written goes to the
-- last part of an index, which is small, and not all over it.

DROP INDEX records_by_address;
DROP INDEX records_by_name;

CREATE INDEX records_by_address ON records (sequence >> 16, address_key, time) WHERE address_key IS NOT NULL;
CREATE INDEX records_by_name    ON records (sequence >> 16, name_key, time) WHERE name_key IS NOT NULL;
