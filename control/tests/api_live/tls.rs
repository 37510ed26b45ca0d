//! TLS: handshakes, a client that does not finish one, a certificate that changes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use control::api::{Limits, TlsFiles};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::Client;
use crate::house::{House, Plan};

/// Writes a certificate for localhost and its key; gives back what trusts it.
fn certify(folder: &Path) -> TlsConnector {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("written");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    let mut roots = RootCertStore::empty();
    let der =
        rustls::pki_types::CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).expect("a certificate");
    roots.add(der).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A session that is resumed shows no certificate.
    config.resumption = rustls::client::Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

async fn connect(house: &House, connector: &TlsConnector) -> std::io::Result<Client> {
    let stream = TcpStream::connect(house.address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    Ok(Client::over(Box::new(connector.connect(name, stream).await?)))
}

fn files(folder: &Path) -> TlsFiles {
    TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_come_over_tls_and_the_certificate_may_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = certify(folder.path());
    let house = House::with(Plan { tls: Some(files(folder.path())), ..Plan::default() }).await;
    let mut client = connect(&house, &first).await.expect("a handshake");
    assert_eq!(client.post("/v1/jobs?wait=20", r#"{"payload":1}"#).await.status, 200);
    let second = certify(folder.path());
    for _ in 0..600 {
        if let Ok(mut client) = connect(&house, &second).await {
            assert_eq!(client.get("/livez").await.status, 200);
            assert!(connect(&house, &first).await.is_err(), "the old one is no longer shown");
            assert_eq!(client.get("/livez").await.status, 200, "open connections stay");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the new certificate is never used");
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_do_not_end_hold_nobody_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let connector = certify(folder.path());
    let limits = Limits { handshake_patience: Duration::from_millis(300), ..Limits::default() };
    let house = House::with(Plan { limits, tls: Some(files(folder.path())), ..Plan::default() }).await;
    let mut stalled = house.client().await;
    stalled.raw(b"\x16\x03\x01").await;
    let mut plain = house.client().await;
    plain.send("GET", "/livez", &[], "").await;
    let mut client = connect(&house, &connector).await.expect("others are served meanwhile");
    assert_eq!(client.get("/livez").await.status, 200);
    stalled.until_closed().await;
    plain.until_closed().await;
    let metrics = client.get("/metrics").await.text();
    assert!(metrics.contains("headroom_tls_handshakes_failed_total 2"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    certify(folder.path());
    std::fs::write(folder.path().join("key.pem"), "nonsense").expect("written");
    let plan = Plan { tls: Some(files(folder.path())), ..Plan::default() };
    let error = House::build(plan).await.err().expect("refused").to_string();
    assert!(error.contains("key.pem"), "{error}");
    let other = tempfile::tempdir().expect("a folder");
    certify(folder.path());
    certify(other.path());
    let mixed = TlsFiles { certificate: folder.path().join("cert.pem"), key: other.path().join("key.pem") };
    let error =
        House::build(Plan { tls: Some(mixed), ..Plan::default() }).await.err().expect("refused").to_string();
    assert!(error.contains("do not fit"), "{error}");
}
