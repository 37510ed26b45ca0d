//! WebP: lossless frames in the container that animations and metadata need (RFC 9649, section 2.7).

use std::io::{self, Write};

use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageError};

use super::{Animation, Picture, Provenance};

/// Bytes of the `RIFF` header with the word `WEBP`, before the first chunk.
const HEADER_BYTES: usize = 12;
const HAS_XMP: u8 = 0x04;
const HAS_ANIMATION: u8 = 0x02;
/// A frame stands for itself; it is not blended with the one before.
const NO_BLENDING: u8 = 0x02;

pub(super) fn write(animation: &Animation, provenance: &Provenance, out: &mut dyn Write) -> io::Result<()> {
    let animated = animation.frames.len() > 1;
    let mut extended = vec![HAS_XMP | if animated { HAS_ANIMATION } else { 0 }, 0, 0, 0];
    extended.extend(three_bytes(animation.width() - 1));
    extended.extend(three_bytes(animation.height() - 1));
    let mut body = b"WEBP".to_vec();
    chunk(&mut body, *b"VP8X", &extended)?;
    if animated {
        // A white background, which no frame lets through, and no end to the repetitions.
        chunk(&mut body, *b"ANIM", &[0xff, 0xff, 0xff, 0xff, 0, 0])?;
    }
    for (index, frame) in animation.frames.iter().enumerate() {
        let image = image_chunk(frame)?;
        if !animated {
            body.extend(image);
            continue;
        }
        let shown_ms = animation.rate.shown(index, 1000).min(0xff_ffff);
        let mut payload = vec![0; 6];
        for value in [frame.width - 1, frame.height - 1, shown_ms] {
            payload.extend(three_bytes(value));
        }
        payload.push(NO_BLENDING);
        payload.extend(image);
        chunk(&mut body, *b"ANMF", &payload)?;
    }
    chunk(&mut body, *b"XMP ", provenance.xmp().as_bytes())?;
    out.write_all(b"RIFF")?;
    out.write_all(&length(body.len())?)?;
    out.write_all(&body)
}

/// The one chunk of a simple lossless file.
fn image_chunk(frame: &Picture) -> io::Result<Vec<u8>> {
    let mut file = Vec::new();
    let encoder = WebPEncoder::new_lossless(&mut file);
    let encoded = encoder.encode(&frame.rgb, frame.width, frame.height, ExtendedColorType::Rgb8);
    encoded.map_err(|error| match error {
        ImageError::IoError(error) => error,
        other => io::Error::other(other),
    })?;
    Ok(file.split_off(HEADER_BYTES))
}

/// A chunk: its name, its length, its bytes, and one more where their number is odd.
fn chunk(body: &mut Vec<u8>, name: [u8; 4], bytes: &[u8]) -> io::Result<()> {
    body.extend(name);
    body.extend(length(bytes.len())?);
    body.extend(bytes);
    if bytes.len() % 2 == 1 {
        body.push(0);
    }
    Ok(())
}

fn length(bytes: usize) -> io::Result<[u8; 4]> {
    let too_long = |_| io::Error::other("a WebP file holds at most 4 GiB; make fewer or smaller frames");
    u32::try_from(bytes).map(u32::to_le_bytes).map_err(too_long)
}

fn three_bytes(value: u32) -> [u8; 3] {
    let [a, b, c, _] = value.to_le_bytes();
    [a, b, c]
}
