//! A worker over TLS: it trusts the authority that it was given, and nobody else.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use control::store::Disk;
use control::worker::{Address, AddressError, Exit, Stop};
use policy::records::JobOutcome;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::house::{House, JOIN, Plan, end};
use super::{employ, settings};

/// A door with a certificate for localhost in front of `inner`; the certificate is in `file`.
async fn tls_door(inner: SocketAddr, file: &Path) -> SocketAddr {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(file, made.cert.pem()).expect("written");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut outer) = acceptor.accept(stream).await else { return };
                let mut inner = TcpStream::connect(inner).await.expect("the house");
                let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_joins_over_tls_by_its_authority_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = folder.path().join("authority.pem");
    let house = House::open(&Plan::joined(1, 4), &Disk::default(), None).await;
    let door = tls_door(house.address, &authority).await;
    let url = format!("https://localhost:{}", door.port());
    let with = |authority: Option<&Path>| {
        let mut settings = settings(&house.url(), 4);
        settings.address = Address::new(&url, JOIN, authority).expect("an address");
        settings.alone_for = Some(std::time::Duration::from_millis(300));
        settings
    };
    let (public, _stop) = employ(with(None));
    assert!(matches!(public.await.expect("no panic"), Exit::Alone(_)), "a certificate of nobody's");
    let (worker, stop) = employ(with(Some(&authority)));
    house.until(1, 1).await;
    let (_, done) = house.submit(r#"{"service_s": 0.01}"#).await;
    assert_eq!(end(done).await.outcome, JobOutcome::Done);
    stop.send_replace(Stop::Now);
    assert_eq!(worker.await.expect("no panic"), Exit::Left);
    let absent = Address::new(&url, JOIN, Some(Path::new("absent.pem"))).err();
    assert!(matches!(absent, Some(AddressError::Certificates { .. })), "{absent:?}");
    house.close().await;
}
