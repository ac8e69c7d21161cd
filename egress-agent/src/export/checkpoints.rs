//! Signed checkpoints to where nobody on this node can change them.
//!
//! A checkpoint speaks for everything before it, so only the latest has to arrive:
//! one that cannot be delivered is tried again until the next replaces it. It may
//! come twice, since a new agent begins with the last one of the earlier.

use super::syslog::{self, Facility, Receiver};
use crate::outbound::{Client, Url, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// The first pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a receiver may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where checkpoints go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sink {
    /// Appended to a file, which may lie on another machine's disk.
    File(PathBuf),
    /// A message to a syslog collector, with the note in its structured data.
    Syslog {
        /// To whom.
        receiver: Receiver,
        /// Under which facility.
        facility: Facility,
    },
    /// The note as the body of a POST.
    Http {
        /// Where to.
        url: Url,
        /// Who is trusted to vouch for the receiver.
        client: Client,
        /// What the receiver knows us by.
        token: Option<Token>,
    },
}

/// A bearer token (RFC 6750).
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Reads it from a file that nobody else may read.
    pub fn read(path: &Path) -> Result<Self, String> {
        use std::os::unix::fs::MetadataExt;
        let refuse = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
        if path.metadata().map_err(refuse)?.mode() & 0o077 != 0 {
            return Err(format!(
                "{} may be read by others; make it mode 0600",
                path.display()
            ));
        }
        let text = std::fs::read_to_string(path).map_err(refuse)?;
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{} holds no token", path.display()));
        }
        Ok(Self(token.to_owned()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// For people: without anything that is secret.
impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Syslog { receiver, .. } => write!(f, "syslog {receiver}"),
            Self::Http { url, .. } => write!(f, "{url}"),
        }
    }
}

/// What somebody should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// The sink takes nothing, and why; it is tried again.
    Waiting(String),
    /// It takes checkpoints again.
    Resumed,
}

impl Sink {
    /// Delivers the latest checkpoint, whenever there is another, until the task ends.
    pub async fn run(
        self,
        node: String,
        mut notes: watch::Receiver<Option<String>>,
        tell: impl Fn(&Self, Delivery) + Send,
    ) {
        let mut pause = FIRST_PAUSE;
        let mut waiting = false;
        let mut delivered: Option<String> = None;
        loop {
            let note = notes.borrow_and_update().clone();
            let Some(note) = note.filter(|note| delivered.as_ref() != Some(note)) else {
                if notes.changed().await.is_err() {
                    return;
                }
                continue;
            };
            match self.deliver(&node, &note).await {
                Ok(()) => {
                    if waiting {
                        tell(&self, Delivery::Resumed);
                    }
                    (pause, waiting) = (FIRST_PAUSE, false);
                    delivered = Some(note);
                }
                Err(problem) => {
                    if !waiting {
                        tell(&self, Delivery::Waiting(problem));
                    }
                    waiting = true;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn deliver(&self, node: &str, note: &str) -> Result<(), String> {
        match self {
            Self::File(path) => {
                let (path, note) = (path.clone(), note.to_owned());
                tokio::task::spawn_blocking(move || append(&path, &note))
                    .await
                    .map_err(|error| error.to_string())?
                    .map_err(|error| error.to_string())
            }
            Self::Syslog { receiver, facility } => {
                let message = message(node, note, *facility);
                let sent = receiver.deliver(&[message]).await;
                sent.map_err(|error| error.to_string())
            }
            Self::Http { url, client, token } => {
                let mut headers = vec![("content-type", "text/plain; charset=utf-8".to_owned())];
                let bearer = token.as_ref().map(|token| format!("Bearer {}", token.0));
                headers.extend(bearer.map(|bearer| ("authorization", bearer)));
                let body = note.as_bytes().to_vec();
                match post(client, url, &headers, body, PATIENCE).await {
                    Ok(200..=299) => Ok(()),
                    Ok(status) => Err(format!("it answers with status {status}")),
                    Err(error) => Err(error.to_string()),
                }
            }
        }
    }
}

/// Adds a note, and waits until it is on the disk.
fn append(path: &Path, note: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)?;
    file.write_all(note.as_bytes())?;
    file.sync_all()
}

/// One message: notice, and the note in base64, since it has line ends.
fn message(node: &str, note: &str, facility: Facility) -> String {
    /// `notice`.
    const SEVERITY: u8 = 5;
    let size = note.lines().nth(1).unwrap_or_default();
    let priority = syslog::priority(facility, SEVERITY);
    format!(
        "<{priority}>1 {:.6} {node} egress-agent - checkpoint [checkpoint@32473 size=\"{}\" note=\"{}\"] \
         checkpoint over {size} records",
        Timestamp::now(),
        size.chars()
            .filter(char::is_ascii_digit)
            .collect::<String>(),
        BASE64.encode(note)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const NOTE: &str = "egress-audit/v1/n/c\n7\nAAAA\n\n— egress-audit/v1/n/c BBBB\n";

    #[test]
    fn a_token_that_others_can_read_or_that_is_none_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        std::fs::write(&path, "abc\n").expect("written");
        let mode = |mode| {
            let set = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
            set.expect("set");
        };
        mode(0o640);
        assert!(Token::read(&path).expect_err("open").contains("0600"));
        mode(0o600);
        assert_eq!(Token::read(&path), Ok(Token("abc".to_owned())));
        std::fs::write(&path, "a b").expect("written");
        assert!(Token::read(&path).expect_err("blank").contains("no token"));
    }

    #[tokio::test]
    async fn what_is_refused_is_sent_again_and_only_the_latest_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let url = Url::parse(&format!("http://127.0.0.1:{port}/c")).expect("a URL");
        let sink = Sink::Http {
            url,
            client: Client::new(None).expect("a client"),
            token: Some(Token("abc".to_owned())),
        };
        let (sender, notes) = watch::channel(Some(NOTE.to_owned()));
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = Arc::clone(&told);
        let tell = move |_: &Sink, delivery| telling.lock().expect("unpoisoned").push(delivery);
        let running = tokio::spawn(sink.run("n".to_owned(), notes, tell));
        let mut seen = Vec::new();
        for answer in ["503 Busy", "204 No Content", "204 No Content"] {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = Vec::new();
            while !request.ends_with(b"BBBB\n") {
                let mut buffer = [0; 1024];
                let read = stream.read(&mut buffer).await.expect("bytes");
                assert!(read > 0, "{}", String::from_utf8_lossy(&request));
                request.extend_from_slice(&buffer[..read]);
            }
            let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.expect("answered");
            let request = String::from_utf8(request).expect("text");
            assert!(
                request.contains("authorization: Bearer abc\r\n"),
                "{request}"
            );
            seen.push(request.split_once("\r\n\r\n").expect("a body").1.to_owned());
            if seen.len() == 2 {
                sender.send_replace(Some(NOTE.replace("\n7\n", "\n8\n")));
            }
        }
        assert_eq!(seen[0], NOTE);
        assert_eq!(seen[1], NOTE);
        assert_eq!(seen[2], NOTE.replace("\n7\n", "\n8\n"));
        running.abort();
        let told = told.lock().expect("unpoisoned");
        assert!(
            matches!(told.as_slice(), [Delivery::Waiting(why), Delivery::Resumed] if why.contains("503")),
            "{told:?}"
        );
    }

    #[tokio::test]
    async fn a_file_gets_one_note_after_the_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notes");
        let sink = Sink::File(path.clone());
        for _ in 0..2 {
            sink.deliver("n", NOTE).await.expect("written");
        }
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(text, NOTE.repeat(2));
        let nowhere = Sink::File(directory.path().join("no/notes"));
        assert!(nowhere.deliver("n", NOTE).await.is_err());
    }
}
