//! Logs and metrics.
//!
//! Domain names and addresses do not appear in logs above `debug`: the audit
//! store is where they belong. Levels: `error` for what somebody has to repair,
//! `warn` for what works worse than it should, `info` for what an operator did
//! or would ask about, `debug` for one line per event.

#![forbid(unsafe_code)]

pub mod ids;
pub mod metrics;
mod plain;

use plain::Plain;
use std::env::VarError;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable that overrides the level, in the syntax of
/// `tracing_subscriber::EnvFilter`: `debug`, `info,egress_agent::dns=trace`.
pub const VARIABLE: &str = "EGRESS_LOG";

/// How a log line looks. Lines go to standard error: standard output is the
/// answer of a command, or belongs to the command that runs in a sandbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
    /// Entries of journald with fields, which go to its socket.
    Journal,
}

impl LogFormat {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::Human, Self::Json, Self::Journal];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Json => "json",
            Self::Journal => "journal",
        }
    }

    /// What suits where standard error goes: systemd says by `JOURNAL_STREAM`
    /// which file its journal's is (systemd.exec(5)).
    pub fn suitable() -> Self {
        let journal = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        let own = std::fs::metadata("/proc/self/fd/2");
        match own {
            Ok(own) if journal == format!("{}:{}", own.dev(), own.ino()) => Self::Journal,
            Ok(_) | Err(_) => Self::Human,
        }
    }
}

impl FromStr for LogFormat {
    type Err = TelemetryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| TelemetryError::Format(text.to_owned()))
    }
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error(
        "`{text}` is no log filter: {reason}; write a level ({VARIABLE}=debug) or `module=level`, separated by commas"
    )]
    Filter {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No such format.
    #[error("`{0}` is no log format; write `human`, `json` or `journal`")]
    Format(String),
    /// There is no journald.
    #[error("journald cannot be written to: {0}; use another log format")]
    Journal(std::io::Error),
    /// Logging was started before.
    #[error("logging was already started in this process")]
    Started,
}

/// Starts logging for the process: at `level` (`warn`, `info`, or a filter)
/// unless [`VARIABLE`] says otherwise.
pub fn init(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    let filter = match std::env::var(VARIABLE) {
        Ok(text) if !text.trim().is_empty() => filter(&text)?,
        Ok(_) | Err(VarError::NotPresent) => filter(level)?,
        Err(VarError::NotUnicode(text)) => filter(&text.to_string_lossy())?,
    };
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Human => lines
            .with_ansi(std::io::stderr().is_terminal())
            .fmt_fields(Plain)
            .with_env_filter(filter)
            .finish()
            .try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_env_filter(filter)
            .finish()
            .try_init(),
        LogFormat::Journal => {
            // Without a prefix, since `message_id` is a field that journald knows.
            let journal = tracing_journald::layer()
                .map_err(TelemetryError::Journal)?
                .with_field_prefix(None)
                .with_syslog_identifier("egress-agent".into());
            tracing_subscriber::registry()
                .with(filter)
                .with(journal)
                .try_init()
        }
    };
    started.map_err(|_| TelemetryError::Started)
}

fn filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| TelemetryError::Filter {
            text: text.to_owned(),
            reason: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_or_lists_of_modules() {
        for text in ["debug", "info,egress_agent::dns=trace", "off"] {
            assert!(filter(text).is_ok(), "{text}");
        }
        let error = filter("egress_agent=loudly").expect_err("no level");
        assert!(
            error.to_string().contains("`egress_agent=loudly`"),
            "{error}"
        );
    }

    #[test]
    fn formats_are_known_by_name_and_others_are_refused_with_the_choice() {
        for format in LogFormat::ALL {
            assert_eq!(format.name().parse::<LogFormat>().ok(), Some(format));
        }
        let error = "xml".parse::<LogFormat>().expect_err("no format");
        assert!(
            error.to_string().contains("`human`, `json` or `journal`"),
            "{error}"
        );
    }

    #[test]
    fn logging_starts_once() {
        assert!(init(LogFormat::Json, "off").is_ok());
        assert!(matches!(
            init(LogFormat::Human, "off"),
            Err(TelemetryError::Started)
        ));
    }
}
