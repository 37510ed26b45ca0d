//! TLS: certificate and key from two PEM files, read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Where certificate and key are.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate and those between it and its root, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Files that make no TLS server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("could not read the certificates `{path}`: {why}")]
    Certificates { path: PathBuf, why: String },
    #[error("could not read the private key `{path}`: {why}")]
    Key { path: PathBuf, why: String },
    #[error("certificate `{certificates}` and key `{key}` do not fit together: {why}")]
    Pair { certificates: PathBuf, key: PathBuf, why: String },
}

/// The certificate in use.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    seen: [Option<SystemTime>; 2],
}

impl Certificate {
    pub(crate) fn open(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let seen = modified(&files);
        let key = Arc::new(load(&files)?);
        Ok(Arc::new(Self { files, current: RwLock::new(Current { key, seen }) }))
    }

    /// Reads the files again if they changed. Files that do not fit together leave the certificate as it is, and are
    /// tried again: one of the two is written first.
    pub(crate) fn refresh(&self) -> Result<bool, TlsError> {
        let seen = modified(&self.files);
        if seen == self.current.read().unwrap_or_else(PoisonError::into_inner).seen {
            return Ok(false);
        }
        let key = Arc::new(load(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current { key, seen };
        Ok(true)
    }

    pub(crate) fn config(self: &Arc<Self>) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("ring has both versions");
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).key.clone())
    }
}

fn load(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let wrong = |why: String| TlsError::Certificates { path: files.certificate.clone(), why };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong("there is none in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| TlsError::Key { path: files.key.clone(), why: error.to_string() })?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| TlsError::Pair {
        certificates: files.certificate.clone(),
        key: files.key.clone(),
        why: error.to_string(),
    })
}

fn modified(files: &TlsFiles) -> [Option<SystemTime>; 2] {
    let time = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    [time(&files.certificate), time(&files.key)]
}
