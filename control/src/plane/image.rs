//! A plane put away and taken up again.

use super::{Plane, Rules};

/// An image that this plane cannot take up.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not decodable, or of another release.
    #[error("the image in the journal is none of this release: {0}")]
    Unreadable(String),
}

/// A plane's state, put away.
pub struct PlaneImage {}

impl PlaneImage {
    pub fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    pub fn decode(_: &[u8]) -> Result<Self, ImageError> {
        Err(ImageError::Unreadable("images are not read yet".to_owned()))
    }
}

impl Plane {
    pub fn image(&self) -> PlaneImage {
        PlaneImage {}
    }

    pub fn restore(_: Rules, _: PlaneImage) -> Result<Self, ImageError> {
        Err(ImageError::Unreadable("images are not read yet".to_owned()))
    }
}
