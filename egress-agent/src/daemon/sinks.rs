//! Checkpoints on their way to where nobody on this node can change them.

use super::agent::Agent;
use super::feeds::SyslogWire;
use crate::export::checkpoints::{Delivery, Sink, Token};
use crate::outbound::{Client, Url};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;

/// One of `[[audit.checkpoint_sinks]]`.
#[derive(Deserialize, Debug)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum SinkWire {
    File {
        path: PathBuf,
    },
    Syslog(SyslogWire),
    Http {
        url: String,
        ca_file: Option<PathBuf>,
        token_file: Option<PathBuf>,
    },
}

impl SinkWire {
    /// What it means, or what is wrong with it. Reads the files that are named.
    pub(super) fn read(self) -> Result<Sink, String> {
        match self {
            Self::File { path } if !path.is_absolute() => {
                Err(format!("path: `{}` is no absolute path", path.display()))
            }
            Self::File { path } => Ok(Sink::File(path)),
            Self::Syslog(wire) => wire
                .read()
                .map(|config| Sink::Syslog {
                    receiver: config.receiver,
                    facility: config.facility,
                })
                .map_err(|(key, problem)| {
                    let key = key.strip_prefix("syslog.").unwrap_or(key);
                    format!("{key}: {problem}")
                }),
            Self::Http {
                url,
                ca_file,
                token_file,
            } => Ok(Sink::Http {
                url: Url::parse(&url).map_err(|error| format!("url: {error}"))?,
                client: Client::new(ca_file.as_deref())
                    .map_err(|error| format!("ca_file: {error}"))?,
                token: token_file
                    .map(|path| Token::read(&path))
                    .transpose()
                    .map_err(|problem| format!("token_file: {problem}"))?,
            }),
        }
    }
}

impl Agent {
    /// Delivers checkpoints to every sink until the agent stops.
    pub(super) async fn feed_sinks(self: Arc<Self>) {
        let mut sinks = tokio::task::JoinSet::new();
        for sink in &self.config().audit.sinks {
            let agent = Arc::clone(&self);
            let (node, notes) = (self.store().node().to_owned(), self.store().checkpoints());
            let tell = move |sink: &Sink, delivery| agent.tell_of_sink(sink, &delivery);
            sinks.spawn(sink.clone().run(node, notes, tell));
        }
        // What is left when this is dropped ends with it.
        self.stopped().await;
    }

    fn tell_of_sink(&self, sink: &Sink, delivery: &Delivery) {
        self.tell(match delivery {
            Delivery::Waiting(problem) => {
                format!("checkpoints do not reach {sink}, the latest is tried again: {problem}")
            }
            Delivery::Resumed => format!("checkpoints reach {sink} again"),
        });
    }
}
