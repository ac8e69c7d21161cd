//! Where each field of a record stands in the table, in SQL: once. What has no
//! column of its own is read from the body.

pub const SANDBOX: &str = "(SELECT sandbox FROM subjects WHERE id = records.subject)";
pub const TASK: &str = "(SELECT task FROM subjects WHERE id = records.subject)";
pub const PROJECT: &str = "(SELECT project FROM subjects WHERE id = records.subject)";
pub const KIND: &str = "kind";
pub const OUTCOME: &str = "outcome";
pub const REASON: &str = "reason";
pub const POLICY: &str = "body ->> '$.policy'";
pub const SESSION: &str = "body ->> '$.session'";
pub const NAME: &str = "body ->> '$.name'";
pub const ADDRESS: &str = "body ->> '$.address'";
pub const PORT: &str = "body ->> '$.port'";
pub const PROTOCOL: &str = "body ->> '$.protocol'";
pub const RULE_FILE: &str = "body ->> '$.rule.file'";
pub const RULE_LINE: &str = "body ->> '$.rule.line'";
pub const RULE_TEXT: &str = "body ->> '$.rule.text'";
pub const PROCESS: &str = "body ->> '$.process'";
pub const COMMAND: &str = "body ->> '$.command'";
pub const HOOK: &str = "body ->> '$.hook'";
pub const COUNT: &str = "body ->> '$.count'";

/// Conditions that hold for every record of the index of kinds, and of that of
/// verdicts: SQLite takes a partial index only where its own words are repeated.
pub const RARE_KIND: &str = "kind <> 'flow' AND kind <> 'dns'";
pub const REFUSED: &str = "outcome <> 'allow'";

/// Begins a condition that is met within the parts of an index that is led by them, and holds for every
/// record. The words are those of the index. From part to part that has records: whoever alters the file can
/// leave any number of others in between.
pub const IN_EACH_PART: &str = "sequence >> 16 IN (WITH RECURSIVE parts (part) AS (\
    SELECT min(sequence) >> 16 FROM records UNION ALL \
    SELECT (SELECT min(sequence) >> 16 FROM records WHERE sequence >= (part + 1) << 16) FROM parts \
    WHERE part < (SELECT max(sequence) >> 16 FROM records)) SELECT part FROM parts) AND ";
