//! The syslog feed of a running agent.

use super::agent::Agent;
use crate::export::syslog::{Feed, Told};
use crate::model::{Record, RecordKind};
use jiff::Timestamp;
use std::sync::Arc;

impl Agent {
    /// Feeds the collector until the agent stops, if one is configured.
    pub(super) async fn feed_syslog(self: Arc<Self>) {
        let Some(config) = self.config().syslog.clone() else {
            return;
        };
        let place = self.config().state_directory.join("syslog.place");
        let begun = async {
            let reader = self.store().reader().await?;
            let feed = Feed::resume(config.receiver, config.facility, &place, &reader).await?;
            Ok::<_, crate::audit::AuditError>((reader, feed))
        };
        let (reader, feed) = match begun.await {
            Ok(begun) => begun,
            Err(error) => {
                tracing::error!(%error, "the syslog feed cannot begin");
                return;
            }
        };
        let agent = Arc::clone(&self);
        let fed = feed.run(reader, move |told| agent.tell_of_syslog(told));
        tokio::select! {
            () = self.stopped() => {}
            () = fed => {}
        }
    }

    fn tell_of_syslog(&self, told: Told) {
        match told {
            Told::Waiting(problem) => {
                self.tell(format!("the syslog collector takes nothing, records wait: {problem}"));
            }
            Told::Resumed => self.tell("the syslog collector takes records again".into()),
            Told::Lost(records) => self.recorder().record(Record {
                count: records,
                detail: Some(format!(
                    "{records} records were gone from the store before the syslog collector took them"
                )),
                ..Record::new(Timestamp::now(), RecordKind::Loss)
            }),
        }
    }
}
