//! The options that say on whose behalf a sandbox runs.

use crate::model::Attribution;
use clap::Args;

/// Where help lists them.
const HEADING: &str = "On whose behalf (kept in every record, decides nothing)";

#[derive(Args, Clone, Debug)]
pub struct AttributionArguments {
    /// The task, such as a ticket or a job.
    #[arg(long, help_heading = HEADING, value_name = "TEXT")]
    task: Option<String>,
    /// The session that the task is part of.
    #[arg(long, help_heading = HEADING, value_name = "TEXT")]
    session: Option<String>,
    /// The project.
    #[arg(long, help_heading = HEADING, value_name = "TEXT")]
    project: Option<String>,
    /// The person or account that the command runs for; who it runs as is the
    /// policy's to say.
    #[arg(long, help_heading = HEADING, value_name = "TEXT")]
    user: Option<String>,
    /// Anything else; may be given more than once.
    #[arg(long = "label", help_heading = HEADING, value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

impl From<AttributionArguments> for Attribution {
    fn from(arguments: AttributionArguments) -> Self {
        Self {
            task: arguments.task,
            session: arguments.session,
            project: arguments.project,
            on_behalf_of: arguments.user,
            labels: arguments.labels.into_iter().collect(),
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("`{text}` has no `=`; write KEY=VALUE"))
}
