//! The store behind the routes: a folder, memory or S3. Nothing here knows who may do what.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error, GetOptions, GetResult, GetResultPayload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, WriteMultipart,
};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::folder::{Draft, Folder};
use super::key::Key;

/// Objects up to this are sent to a remote store at once, larger ones in parts of this size, bytes.
const PART_BYTES: usize = 8 << 20;

/// Parts under way to a remote store at once.
const PARTS_MAX: usize = 4;

/// Bytes read from a file at once.
const READ_BYTES: usize = 256 << 10;

/// Where objects are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a folder on this machine.
    Folder(PathBuf),
    /// In memory: for tests.
    Memory,
    /// At Amazon S3, or what speaks like it: `s3://bucket/prefix`. Credentials, region and endpoint come from the
    /// environment (`AWS_...`) or from the instance's role. Needs the feature `aws`.
    S3(String),
}

/// A store that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The folder.
    #[error("the folder of objects `{path}`: {error}")]
    Folder { path: PathBuf, error: String },
    /// The address.
    #[error("the objects at `{url}`: {why}")]
    Url { url: String, why: String },
}

/// A store.
pub(super) struct Depot {
    store: Arc<dyn ObjectStore>,
    folder: Option<Arc<Folder>>,
    /// Before every key.
    prefix: Path,
    #[cfg(feature = "aws")]
    signer: Option<Arc<object_store::aws::AmazonS3>>,
}

impl Depot {
    /// Opens a store; `reserve` bytes stay free on the disk of a folder.
    pub(super) fn open(place: &Place, reserve: u64) -> Result<Self, PlaceError> {
        match place {
            Place::Folder(path) => {
                let failed = |error: String| PlaceError::Folder { path: path.clone(), error };
                let folder = Folder::open(path, reserve).map_err(|error| failed(error.to_string()))?;
                let store = LocalFileSystem::new_with_prefix(folder.root());
                let store = store.map_err(|error| failed(error.to_string()))?.with_automatic_cleanup(true);
                Ok(Self { folder: Some(Arc::new(folder)), ..Self::of(Arc::new(store)) })
            }
            Place::Memory => Ok(Self::of(Arc::new(InMemory::new()))),
            Place::S3(url) => Self::s3(url),
        }
    }

    fn of(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            folder: None,
            prefix: Path::default(),
            #[cfg(feature = "aws")]
            signer: None,
        }
    }

    #[cfg(feature = "aws")]
    fn s3(url: &str) -> Result<Self, PlaceError> {
        let failed = |why: String| PlaceError::Url { url: url.to_owned(), why };
        let rest = url.strip_prefix("s3://").ok_or_else(|| failed("use s3://bucket/prefix".to_owned()))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = Path::parse(prefix).map_err(|error| failed(error.to_string()))?;
        let store = object_store::aws::AmazonS3Builder::from_env().with_bucket_name(bucket).build();
        let store = Arc::new(store.map_err(|error| failed(error.to_string()))?);
        Ok(Self { signer: Some(store.clone()), prefix, ..Self::of(store) })
    }

    #[cfg(not(feature = "aws"))]
    fn s3(url: &str) -> Result<Self, PlaceError> {
        let why = "this program was built without the feature `aws`".to_owned();
        Err(PlaceError::Url { url: url.to_owned(), why })
    }

    fn path(&self, key: &Key) -> Path {
        self.prefix.parts().chain(key.path().parts()).collect()
    }

    /// A URL of the store itself, where it can make one.
    #[cfg(feature = "aws")]
    pub(super) async fn signed(
        &self,
        method: &axum::http::Method,
        key: &Key,
        expires: Duration,
    ) -> Result<Option<String>, Error> {
        use object_store::signer::Signer;
        let Some(signer) = &self.signer else { return Ok(None) };
        Ok(Some(signer.signed_url(method.clone(), &self.path(key), expires).await?.to_string()))
    }

    /// A URL of the store itself, where it can make one.
    #[cfg(not(feature = "aws"))]
    pub(super) async fn signed(
        &self,
        _method: &axum::http::Method,
        _key: &Key,
        _expires: Duration,
    ) -> Result<Option<String>, Error> {
        Ok(None)
    }

    pub(super) async fn head(&self, key: &Key) -> Result<ObjectMeta, Error> {
        self.store.head(&self.path(key)).await
    }

    pub(super) async fn get(&self, key: &Key, options: GetOptions) -> Result<GetResult, Error> {
        self.store.get_opts(&self.path(key), options).await
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.store.delete(&self.path(key)).await
    }

    /// All objects below `place` (`inputs` or `outputs`), with their keys. What is there without being an object of ours
    /// is left out.
    pub(super) fn list(&self, place: &str) -> BoxStream<'static, Result<(Key, ObjectMeta), Error>> {
        let folder: Path = self.prefix.parts().chain(Path::from(place).parts()).collect();
        let prefix = self.prefix.clone();
        let listed = self.store.list(Some(&folder)).filter_map(move |meta| {
            let found = meta.map(|meta| {
                let parts = meta.location.prefix_match(&prefix)?;
                let text = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
                Key::parse(&text).ok().map(|key| (key, meta))
            });
            std::future::ready(found.transpose())
        });
        listed.boxed()
    }

    /// Begins an object of `length` bytes, where that is known.
    pub(super) async fn upload(&self, key: &Key, kind: &str, length: u64) -> Result<Upload, Error> {
        let Some(folder) = &self.folder else {
            let attributes = Attributes::from_iter([(Attribute::ContentType, kind.to_owned())]);
            let remote = Remote { path: self.path(key), attributes, buffer: BytesMut::new(), parts: None };
            return Ok(Upload::Remote { store: self.store.clone(), remote });
        };
        let draft = folder.draft(length).await.map_err(generic)?;
        Ok(Upload::Folder { folder: folder.clone(), draft, key: key.as_str().to_owned() })
    }
}

/// An object that is being written; it appears with [`Upload::finish`], and dropped it never does.
pub(super) enum Upload {
    Folder { folder: Arc<Folder>, draft: Draft, key: String },
    Remote { store: Arc<dyn ObjectStore>, remote: Remote },
}

pub(super) struct Remote {
    path: Path,
    attributes: Attributes,
    buffer: BytesMut,
    parts: Option<WriteMultipart>,
}

impl Drop for Remote {
    fn drop(&mut self) {
        // Parts that were sent cost money until somebody says that nothing follows.
        if let (Some(parts), Ok(runtime)) = (self.parts.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(parts.abort());
        }
    }
}

impl Upload {
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        match self {
            Self::Folder { folder, draft, .. } => folder.write(draft, &bytes).await.map_err(generic),
            Self::Remote { store, remote } => {
                if let Some(parts) = &mut remote.parts {
                    parts.wait_for_capacity(PARTS_MAX).await?;
                    parts.put(bytes);
                    return Ok(());
                }
                remote.buffer.extend_from_slice(&bytes);
                if remote.buffer.len() > PART_BYTES {
                    let options = PutMultipartOptions::from(remote.attributes.clone());
                    let begun = store.put_multipart_opts(&remote.path, options).await?;
                    let mut parts = WriteMultipart::new_with_chunk_size(begun, PART_BYTES);
                    parts.put(std::mem::take(&mut remote.buffer).freeze());
                    remote.parts = Some(parts);
                }
                Ok(())
            }
        }
    }

    /// Makes the object appear, whole.
    pub(super) async fn finish(self) -> Result<(), Error> {
        match self {
            Self::Folder { folder, draft, key } => folder.keep(draft, &key).await.map_err(generic),
            Self::Remote { store, mut remote } => {
                match remote.parts.take() {
                    Some(parts) => parts.finish().await?,
                    None => {
                        let options = PutOptions::from(remote.attributes.clone());
                        let bytes = std::mem::take(&mut remote.buffer).freeze();
                        store.put_opts(&remote.path, bytes.into(), options).await?
                    }
                };
                Ok(())
            }
        }
    }
}

/// The bytes of an object that was found.
pub(super) fn stream(found: GetResult) -> BoxStream<'static, io::Result<Bytes>> {
    let range = found.range.clone();
    match found.payload {
        GetResultPayload::Stream(stream) => stream.map(|bytes| bytes.map_err(io::Error::other)).boxed(),
        GetResultPayload::File(file, _) => {
            let mut file = tokio::fs::File::from_std(file);
            file.set_max_buf_size(READ_BYTES);
            let begin = async move {
                file.seek(io::SeekFrom::Start(range.start)).await?;
                Ok(file.take(range.end - range.start))
            };
            let chunks = futures_util::stream::once(begin).flat_map(|file| match file {
                Ok(file) => futures_util::stream::try_unfold(file, |mut file| async move {
                    let mut bytes = BytesMut::with_capacity(READ_BYTES);
                    let read = file.read_buf(&mut bytes).await?;
                    Ok((read > 0).then(|| (bytes.freeze(), file)))
                })
                .boxed(),
                Err(error) => futures_util::stream::once(std::future::ready(Err(error))).boxed(),
            });
            chunks.boxed()
        }
    }
}

fn generic(error: io::Error) -> Error {
    Error::Generic { store: "folder", source: Box::new(error) }
}

/// The system's error below a store's, where there is one.
pub(super) fn system_error(error: &Error) -> Option<ErrorKind> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(system) = inner.downcast_ref::<io::Error>() {
            return Some(system.kind());
        }
        cause = inner.source();
    }
    None
}
