//! PNG, and APNG for several frames (PNG third edition, animation chunks).

use std::io::{self, Write};

use png::{BitDepth, ColorType, Encoder, EncodingError, SrgbRenderingIntent};

use super::{Animation, Provenance};

/// The keyword that XMP stands under (XMP specification part 3, PNG).
const XMP_KEYWORD: &str = "XML:com.adobe.xmp";

pub(super) fn write(animation: &Animation, provenance: &Provenance, out: &mut dyn Write) -> io::Result<()> {
    encode(animation, provenance, out).map_err(|error| match error {
        EncodingError::IoError(error) => error,
        other => io::Error::other(other),
    })
}

fn encode(animation: &Animation, provenance: &Provenance, out: &mut dyn Write) -> Result<(), EncodingError> {
    let mut encoder = Encoder::new(out, animation.width(), animation.height());
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_source_srgb(SrgbRenderingIntent::Perceptual);
    encoder.add_itxt_chunk(XMP_KEYWORD.to_owned(), provenance.xmp())?;
    encoder.add_itxt_chunk("Description".to_owned(), provenance.description())?;
    if animation.frames.len() > 1 {
        let frames = u32::try_from(animation.frames.len()).map_err(io::Error::other)?;
        encoder.set_animated(frames, 0)?;
        encoder.set_frame_delay(animation.rate.seconds, animation.rate.frames)?;
    }
    let mut writer = encoder.write_header()?;
    for frame in &animation.frames {
        writer.write_image_data(&frame.rgb)?;
    }
    writer.finish()
}
