//! One HTTP request.

use super::tls::{Client, TlsError};
use super::url::Url;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// The connection cannot be made.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// TLS fails.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A header that cannot be sent.
    #[error("a header cannot be sent: {0}")]
    Header(hyper::http::Error),
    /// The conversation broke off.
    #[error("the conversation broke off: {0}")]
    Broken(#[from] hyper::Error),
}

/// Sends a body, and returns the status of the answer. Redirections are not followed.
pub async fn post(
    client: &Client,
    url: &Url,
    headers: &[(&'static str, String)],
    body: Vec<u8>,
    patience: Duration,
) -> Result<u16, HttpError> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(url.target())
        .header(HOST, url.authority());
    for (name, value) in headers {
        let value =
            HeaderValue::from_str(value).map_err(|error| HttpError::Header(error.into()))?;
        request = request.header(HeaderName::from_static(name), value);
    }
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(HttpError::Header)?;
    let answer = async {
        let stream = TcpStream::connect((url.host(), url.port()))
            .await
            .map_err(HttpError::Connect)?;
        if url.is_tls() {
            send(client.connect(url.host(), stream).await?, request).await
        } else {
            send(stream, request).await
        }
    };
    tokio::time::timeout(patience, answer)
        .await
        .map_err(|_| HttpError::Slow(patience))?
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<u16, HttpError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender; its error shows in the request's own.
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    Ok(response.status().as_u16())
}
