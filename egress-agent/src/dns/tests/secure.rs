//! Upstreams over TLS and HTTPS, real ones on loopback, with an authority made
//! for the test.

use super::upstream::{address, answer, bytes};
use super::world::{World, addresses, config, extended_error};
use crate::dns::{Config, Endpoint, Identity, Transport};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The name in the server's certificate.
const NAME: &str = "dns.test";

/// A server with a certificate, and who vouches for it.
struct Secure {
    address: SocketAddr,
    authority: tempfile::NamedTempFile,
    pin: [u8; 32],
    asked: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tls,
    Https,
}

fn reply(query: &[u8]) -> Vec<u8> {
    let query = Message::from_vec(query).expect("a query");
    assert!(
        query.to_vec().expect("encodes").len().is_multiple_of(128),
        "padded"
    );
    bytes(&answer(&query, vec![address("ok.test", 0, "203.0.113.7")]))
}

impl Secure {
    async fn new(kind: Kind) -> Self {
        let authority_key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&authority_key).expect("signed");
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
        let issuer = Issuer::new(params, authority_key);
        let certificate = leaf.signed_by(&key, &issuer).expect("signed");
        let pin = Sha256::digest(key.subject_public_key_info()).into();
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), authority.pem()).expect("written");

        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let mut server =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(chain, private)
                .expect("a certificate");
        server.alpn_protocols = vec![match kind {
            Kind::Tls => b"dot".to_vec(),
            Kind::Https => b"h2".to_vec(),
        }];
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let (asked, connections) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let mut tasks = JoinSet::new();
        let (heard, opened) = (asked.clone(), connections.clone());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                opened.fetch_add(1, Ordering::Relaxed);
                let (acceptor, heard) = (acceptor.clone(), heard.clone());
                tokio::spawn(async move {
                    // A client that does not trust this server hangs up.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        match kind {
                            Kind::Tls => over_tls(stream, heard).await,
                            Kind::Https => over_https(stream, heard).await,
                        }
                    }
                });
            }
        });
        Self {
            address,
            authority: file,
            pin,
            asked,
            connections,
            _tasks: tasks,
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            name: NAME.to_owned(),
            authorities: Some(self.authority.path().to_owned()),
            pins: Vec::new(),
        }
    }

    async fn world(&self, transport: Transport) -> World {
        World::with(Config {
            upstreams: vec![Endpoint {
                address: self.address,
                transport,
                view: None,
                domains: Vec::new(),
            }],
            ..config(&[])
        })
        .await
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn over_tls(mut stream: TlsStream<TcpStream>, heard: Arc<AtomicUsize>) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await.expect("a query");
        heard.fetch_add(1, Ordering::Relaxed);
        let reply = reply(&query);
        stream.write_u16(reply.len() as u16).await.expect("sent");
        stream.write_all(&reply).await.expect("sent");
        stream.flush().await.expect("sent");
    }
}

async fn over_https(stream: TlsStream<TcpStream>, heard: Arc<AtomicUsize>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let heard = heard.clone();
        async move {
            assert_eq!(request.uri().path(), "/dns-query");
            assert_eq!(request.uri().host(), Some(NAME));
            let query = request
                .into_body()
                .collect()
                .await
                .expect("a body")
                .to_bytes();
            heard.fetch_add(1, Ordering::Relaxed);
            let response = Response::builder()
                .header("content-type", "application/dns-message")
                .body(Full::new(Bytes::from(reply(&query))))
                .expect("a response");
            Ok::<_, Infallible>(response)
        }
    });
    // Ends with the client.
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[tokio::test]
async fn names_are_asked_over_tls_in_one_connection() {
    let server = Secure::new(Kind::Tls).await;
    let pinned = Identity {
        pins: vec![server.pin],
        ..server.identity()
    };
    for identity in [server.identity(), pinned] {
        let world = server.world(Transport::Tls(identity)).await;
        let before = server.connections.load(Ordering::Relaxed);
        for _ in 0..3 {
            let answer = world.ask("ok.test", RecordType::A).await;
            assert_eq!(addresses(&answer), ["203.0.113.7"]);
        }
        assert_eq!(server.connections.load(Ordering::Relaxed), before + 1);
        let detail = world.record().detail.expect("details");
        assert!(
            detail.contains("tls://") && detail.contains(NAME),
            "{detail}"
        );
    }
    assert_eq!(server.asked(), 6, "TTL 0 is asked each time");
}

#[tokio::test]
async fn names_are_asked_over_https_in_one_connection() {
    let server = Secure::new(Kind::Https).await;
    let transport = Transport::Https(server.identity(), "/dns-query".into());
    let world = server.world(transport).await;
    for _ in 0..3 {
        let answer = world.ask("ok.test", RecordType::A).await;
        assert_eq!(addresses(&answer), ["203.0.113.7"]);
    }
    assert_eq!(
        (server.asked(), server.connections.load(Ordering::Relaxed)),
        (3, 1)
    );
}

#[tokio::test]
async fn an_impostor_is_told_nothing() {
    for kind in [Kind::Tls, Kind::Https] {
        let server = Secure::new(kind).await;
        let other = Secure::new(kind).await;
        let own = server.identity();
        let wrong = [
            Identity {
                name: "other.test".into(),
                ..own.clone()
            },
            Identity {
                authorities: Some(other.authority.path().to_owned()),
                ..own.clone()
            },
            Identity {
                pins: vec![[7; 32]],
                ..own.clone()
            },
        ];
        for identity in wrong {
            let world = server
                .world(match kind {
                    Kind::Tls => Transport::Tls(identity),
                    Kind::Https => Transport::Https(identity, "/dns-query".into()),
                })
                .await;
            let answer = world.ask("ok.test", RecordType::A).await;
            assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
            let (_, text) = extended_error(&answer).expect("a reason");
            assert!(text.contains("certificate"), "{text}");
        }
        assert_eq!(
            server.asked(),
            0,
            "no name left over a line that is not trusted"
        );
    }
}
