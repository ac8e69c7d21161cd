-- On whose behalf a sandbox ran, as whoever started it said.
ALTER TABLE records ADD COLUMN task         TEXT;
ALTER TABLE records ADD COLUMN session      TEXT;
ALTER TABLE records ADD COLUMN project      TEXT;
ALTER TABLE records ADD COLUMN on_behalf_of TEXT;
-- A JSON object of texts: `labels ->> '$.team'`.
ALTER TABLE records ADD COLUMN labels       TEXT;

CREATE INDEX records_by_task    ON records (task, time) WHERE task IS NOT NULL;
CREATE INDEX records_by_project ON records (project, time) WHERE project IS NOT NULL;
