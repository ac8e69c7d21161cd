-- Whose records they are stands once beside them: an index of small numbers costs the
-- writer less than three of names. Done in place, so that a file at its bound
-- has room for it, and what is taken away comes first; the log beside it grows by about the size of the file meanwhile.

DROP INDEX records_by_sandbox;
DROP INDEX records_by_task;
DROP INDEX records_by_project;
DROP INDEX records_by_refusal;
DROP INDEX records_by_reason;

CREATE TABLE subjects (
    id      INTEGER PRIMARY KEY,
    sandbox TEXT,
    task    TEXT,
    project TEXT
) STRICT;

-- The first is also how the writer looks for what is there already.
CREATE INDEX subjects_by_sandbox ON subjects (sandbox, task, project);
CREATE INDEX subjects_by_task    ON subjects (task);
CREATE INDEX subjects_by_project ON subjects (project);

INSERT INTO subjects (sandbox, task, project)
    SELECT DISTINCT sandbox, task, project FROM records
    WHERE coalesce(sandbox, task, project) IS NOT NULL;

-- None where a record has neither sandbox nor task nor project.
ALTER TABLE records ADD COLUMN subject INTEGER;
UPDATE records SET subject = (
    SELECT id FROM subjects WHERE subjects.sandbox IS records.sandbox
        AND subjects.task IS records.task AND subjects.project IS records.project);
ALTER TABLE records DROP COLUMN sandbox;
ALTER TABLE records DROP COLUMN task;
ALTER TABLE records DROP COLUMN project;

CREATE INDEX records_by_subject ON records (subject, time) WHERE subject IS NOT NULL;
-- Whose a refusal is can be told from these indices alone.
CREATE INDEX records_by_refusal ON records (outcome, time, subject) WHERE outcome <> 'allow';
CREATE INDEX records_by_reason  ON records (reason, time, subject) WHERE reason IS NOT NULL;
