//! Where each field of a record stands in the table, in SQL: once.

pub const SANDBOX: &str = "sandbox";
pub const POLICY: &str = "policy";
pub const KIND: &str = "kind";
pub const OUTCOME: &str = "outcome";
pub const REASON: &str = "reason";
pub const NAME: &str = "name";
pub const ADDRESS: &str = "address";
pub const PORT: &str = "port";
pub const PROTOCOL: &str = "protocol";
pub const RULE_FILE: &str = "rule_file";
pub const RULE_LINE: &str = "rule_line";
pub const RULE_TEXT: &str = "rule_text";
pub const PROCESS: &str = "process";
pub const COMMAND: &str = "command";
pub const HOOK: &str = "hook";
pub const COUNT: &str = "count";
pub const TASK: &str = "task";
pub const PROJECT: &str = "project";
pub const SESSION: &str = "session";
