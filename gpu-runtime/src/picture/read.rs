//! Start images: PNG, JPEG and WebP of strangers, read within limits that are checked before anything is allocated.
//!
//! What turns out is what a viewer shows: turned as EXIF says, transparent parts over white. Colour profiles are not
//! applied; of an animation the first frame is taken.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage, imageops};

use super::{Picture, SIDE_MAX};
use crate::RuntimeError;

/// What an image may have at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// Bytes of the file.
    pub bytes_max: usize,
    /// Pixels, width times height.
    pub pixels_max: u64,
}

impl Default for ReadLimits {
    /// 32 MiB and 64 megapixels: more than a phone's photograph, and below 1 GiB while it is read.
    fn default() -> Self {
        Self { bytes_max: 32 << 20, pixels_max: 64_000_000 }
    }
}

/// Bytes that a decoder may hold for a pixel: four channels of 16 bits, and as much for its own work.
const BYTES_PER_PIXEL: u64 = 16;
/// What it may hold besides.
const BYTES_BESIDES: u64 = 16 << 20;

impl Picture {
    /// Reads a PNG, JPEG or WebP file.
    ///
    /// # Errors
    /// `BadRequest` when it cannot be read, is of another kind, damaged, or beyond the limits.
    pub fn read_file(path: &Path, limits: ReadLimits) -> Result<Self, RuntimeError> {
        let bad =
            |why: String| RuntimeError::BadRequest { why: format!("image `{}`: {why}", path.display()) };
        let file = File::open(path).map_err(|error| bad(format!("cannot be opened: {error}")))?;
        let mut bytes = Vec::new();
        let read = file.take(limits.bytes_max as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| bad(format!("cannot be read: {error}")))?;
        decoded(&bytes, limits).map_err(bad)
    }

    /// Reads a PNG, JPEG or WebP image from memory.
    ///
    /// # Errors
    /// `BadRequest` when it is of another kind, damaged, or beyond the limits.
    pub fn read(bytes: &[u8], limits: ReadLimits) -> Result<Self, RuntimeError> {
        decoded(bytes, limits).map_err(|why| RuntimeError::BadRequest { why: format!("image: {why}") })
    }

    /// The picture at another size: its middle, cut to the new shape, then scaled (Lanczos).
    ///
    /// # Panics
    /// A side is 0 or above [`SIDE_MAX`].
    pub fn fitted(&self, width: u32, height: u32) -> Self {
        assert!(
            (1..=SIDE_MAX).contains(&width) && (1..=SIDE_MAX).contains(&height),
            "{width} x {height} pixels"
        );
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        let image =
            RgbImage::from_raw(self.width, self.height, self.rgb.clone()).expect("pixels fill the sides");
        let (cut_width, cut_height) = cut((self.width, self.height), (width, height));
        let (x, y) = ((self.width - cut_width) / 2, (self.height - cut_height) / 2);
        let middle = imageops::crop_imm(&image, x, y, cut_width, cut_height).to_image();
        let scaled = imageops::resize(&middle, width, height, FilterType::Lanczos3);
        Self::new(width, height, scaled.into_raw())
    }
}

/// The largest part of `size` that has the shape of `wanted`.
fn cut(size: (u32, u32), wanted: (u32, u32)) -> (u32, u32) {
    let [width, height, across, down] = [size.0, size.1, wanted.0, wanted.1].map(u64::from);
    let part = |value: u64| u32::try_from(value.max(1)).expect("a part is no larger than the whole");
    if width * down > height * across {
        (part(height * across / down), size.1)
    } else {
        (size.0, part(width * down / across))
    }
}

fn decoded(bytes: &[u8], limits: ReadLimits) -> Result<Picture, String> {
    if bytes.len() > limits.bytes_max {
        return Err(format!("has more than {} bytes", limits.bytes_max));
    }
    let format = image::guess_format(bytes).ok();
    let Some(format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) = format else {
        return Err("is no PNG, JPEG or WebP".to_owned());
    };
    let damaged = |error: image::ImageError| format!("cannot be decoded: {error}");
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut held = Limits::default();
    held.max_image_width = Some(SIDE_MAX);
    held.max_image_height = Some(SIDE_MAX);
    held.max_alloc = Some(limits.pixels_max.saturating_mul(BYTES_PER_PIXEL) + BYTES_BESIDES);
    reader.limits(held);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 || u64::from(width) * u64::from(height) > limits.pixels_max {
        return Err(format!("has {width} x {height} pixels; at most {} are taken", limits.pixels_max));
    }
    let orientation = decoder.orientation().map_err(damaged)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    Ok(over_white(&image))
}

fn over_white(image: &DynamicImage) -> Picture {
    let rgba = image.to_rgba8();
    let mut rgb = Vec::with_capacity(rgba.len() / 4 * 3);
    for pixel in rgba.pixels() {
        let [red, green, blue, alpha] = pixel.0;
        let seen = |level: u8| {
            let (level, alpha) = (u32::from(level), u32::from(alpha));
            ((level * alpha + 255 * (255 - alpha) + 127) / 255) as u8
        };
        rgb.extend([seen(red), seen(green), seen(blue)]);
    }
    Picture::new(image.width(), image.height(), rgb)
}
