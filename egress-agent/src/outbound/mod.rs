//! Connections to receivers that ops configured: TLS, and HTTP requests over it.
//!
//! One request is one connection: alerts are rare, and a connection that is kept
//! would have to be watched. Nothing here retries; callers know for how long
//! their message is worth telling.

#![forbid(unsafe_code)]

mod http;
mod tls;
mod url;

pub use http::{HttpError, post};
pub use tls::{Client, TlsError, TlsStream};
pub use url::{Url, UrlError};
