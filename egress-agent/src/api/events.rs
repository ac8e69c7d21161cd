//! Records as they are stored, as server-sent events.
//!
//! The store is the queue of every client (decision 0055): a client that is slow
//! costs no memory, and one that comes back with `Last-Event-ID` goes on where it
//! was. A live stream is for what happens now, so a client that is far behind is
//! taken forward, and told over how many records.

use crate::audit::{AuditError, Order, Query, Reader, StoredRecord, inert};
use crate::model::RecordKind;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use egress_common::{Outcome, Reason};
use futures_util::{StreamExt, stream};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Clients at a time; each of them asks the store four times a second.
const MOST_CLIENTS: usize = 16;
/// How often it is looked for what is new.
const LOOK: Duration = Duration::from_millis(250);
/// Records that are read at once.
const AT_ONCE: u32 = 1_000;
/// How far a client may be behind.
const MOST_BEHIND: i64 = 65_536;
/// How often a client that hears nothing is shown that the stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What clients are served from.
#[derive(Clone)]
pub(super) struct Events {
    reader: Reader,
    clients: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Events {
    pub fn new(reader: Reader, stopped: watch::Receiver<bool>) -> Self {
        Self {
            reader,
            clients: Arc::new(Semaphore::new(MOST_CLIENTS)),
            stopped,
        }
    }
}

/// Where a client is.
struct Place {
    events: Events,
    query: Query,
    after: i64,
    _permit: OwnedSemaphorePermit,
}

/// Answers `GET /v1/events`.
pub(super) async fn events(
    State(events): State<Events>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if let Some(host) = headers.get(header::HOST)
        && !is_local(host.to_str().unwrap_or_default())
    {
        // A page in somebody's browser that names this address otherwise.
        return refuse(
            StatusCode::FORBIDDEN,
            "the Host header names no local address",
        );
    }
    let query = match conditions(query.as_deref().unwrap_or_default()) {
        Ok(query) => query,
        Err(problem) => return refuse(StatusCode::BAD_REQUEST, &problem),
    };
    let Ok(permit) = Arc::clone(&events.clients).try_acquire_owned() else {
        return refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("{MOST_CLIENTS} clients are served already"),
        );
    };
    let end = match events.reader.last_sequence().await {
        Ok(end) => end,
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    let resumed = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.trim().parse::<i64>().ok())
        // A store that was begun anew counts from 1 again.
        .filter(|after| (0..=end).contains(after));
    let mut stopped = events.stopped.clone();
    let place = Place {
        after: resumed.unwrap_or(end),
        events,
        query,
        _permit: permit,
    };
    let ended = async move {
        // A sender that is gone has stopped, too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    // Something at once: a client that hears nothing does not know that it is heard.
    let begun = Event::default().comment(format!("behind {}", place.after));
    let told = stream::once(std::future::ready(vec![begun]))
        .chain(stream::unfold(place, next))
        .flat_map(stream::iter)
        .map(Ok::<_, Infallible>)
        .take_until(Box::pin(ended));
    Sse::new(told)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

fn refuse(status: StatusCode, problem: &str) -> Response {
    (status, format!("{problem}\n")).into_response()
}

/// `localhost`, a loopback address, or what a client over a Unix socket makes up.
fn is_local(host: &str) -> bool {
    let with_port = host.parse::<SocketAddr>().map(|address| address.ip());
    let address = with_port.or_else(|_| host.trim_matches(['[', ']']).parse::<IpAddr>());
    let name = host.split(':').next().unwrap_or_default();
    address.map_or(name == "localhost", |address| address.is_loopback())
}

/// The conditions of a query string; the names are those of `audit query`.
fn conditions(text: &str) -> Result<Query, String> {
    let mut query = Query {
        order: Order::Stored,
        limit: Some(AT_ONCE),
        ..Query::default()
    };
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value =
            decoded(value).ok_or_else(|| format!("`{key}` is not encoded as a URL wants it"))?;
        match key {
            "sandbox" => query.sandbox = Some(value),
            "policy" => query.policy = Some(value),
            "task" => query.task = Some(value),
            "project" => query.project = Some(value),
            "name" => query.name = Some(value),
            "destination" => {
                query.destination = Some(
                    value
                        .parse()
                        .map_err(|error| format!("destination: {error}"))?,
                );
            }
            "verdict" => query.verdict = Some(named(&value, key, Outcome::ALL, |it| it.name())?),
            "kind" => query.kind = Some(named(&value, key, &RecordKind::ALL, |it| it.name())?),
            "reason" => query.reason = Some(named(&value, key, Reason::ALL, |it| it.name())?),
            _ => {
                return Err(format!(
                    "`{key}` is no condition; there are sandbox, policy, task, project, name, \
                     destination, verdict, kind and reason"
                ));
            }
        }
    }
    Ok(query)
}

fn named<T: Copy>(
    value: &str,
    key: &str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, String> {
    all.iter()
        .copied()
        .find(|it| name(*it) == value)
        .ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|it| name(*it)).collect();
            format!("{key}: write one of {}", names.join(", "))
        })
}

/// Percent-decoding, with `+` for a blank.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The next events of a client; none once the store cannot be read any more.
async fn next(mut place: Place) -> Option<(Vec<Event>, Place)> {
    loop {
        match place.read().await {
            Ok(events) if events.is_empty() => tokio::time::sleep(LOOK).await,
            Ok(events) => return Some((events, place)),
            Err(error) => {
                tracing::warn!(%error, "a stream of events ended: the store cannot be read");
                return None;
            }
        }
    }
}

impl Place {
    async fn read(&mut self) -> Result<Vec<Event>, AuditError> {
        let end = self.events.reader.last_sequence().await?;
        // A damaged file was set aside, and another begun: it counts from 1.
        if end < self.after {
            self.after = 0;
        }
        let mut events = Vec::new();
        let behind = end - self.after;
        if behind > MOST_BEHIND {
            let dropped = behind - MOST_BEHIND / 2;
            let (first, last) = (self.after + 1, self.after + dropped);
            events.push(gap(dropped, first, last));
            self.after = last;
        }
        let query = Query {
            after: Some(self.after),
            ..self.query.clone()
        };
        let records = self.events.reader.query(&query).await?;
        let whole = records.len() == AT_ONCE as usize;
        events.extend(records.iter().map(event));
        // What the conditions leave out is behind the client, too.
        let last = records.last().map_or(self.after, |record| record.sequence);
        self.after = if whole { last } else { last.max(end) };
        Ok(events)
    }
}

fn event(record: &StoredRecord) -> Event {
    let event = Event::default().id(record.sequence.to_string());
    match serde_json::to_string(record) {
        Ok(json) => event.event("record").data(inert(&json)),
        Err(error) => event.event("unreadable").data(error.to_string()),
    }
}

fn gap(records: i64, first: i64, last: i64) -> Event {
    let said = serde_json::json!({ "records": records, "first": first, "last": last });
    Event::default()
        .id(last.to_string())
        .event("dropped")
        .data(said.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_those_of_the_command_line_and_others_are_refused() {
        let query = conditions("sandbox=build-%2A&verdict=deny&kind=flow&destination=10.0.0.0%2F8")
            .expect("conditions");
        assert_eq!(query.sandbox.as_deref(), Some("build-*"));
        assert_eq!(query.verdict, Some(Outcome::Denied));
        assert_eq!(query.kind, Some(RecordKind::Flow));
        assert!(query.destination.is_some());
        for (text, said) in [
            ("colour=red", "`colour` is no condition"),
            ("verdict=no", "write one of"),
            ("sandbox=%4", "not encoded"),
            ("sandbox=%ff", "not encoded"),
            ("destination=a b", "destination"),
        ] {
            let problem = conditions(text).expect_err(text);
            assert!(problem.contains(said), "{text}: {problem}");
        }
    }

    #[test]
    fn only_local_names_are_served() {
        for host in [
            "localhost",
            "localhost:9750",
            "127.0.0.1:9750",
            "[::1]:9750",
            "::1",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9750",
            "10.0.0.1:9750",
            "127.0.0.1.evil.example",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
