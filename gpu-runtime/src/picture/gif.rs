//! GIF: one palette for all frames, so that still parts stay still, and an ordered dither, which does not crawl from frame
//! to frame as error diffusion does.

use std::collections::BTreeSet;
use std::io::{self, Write};

use gif::{Encoder, EncodingError, Extension, Frame, Repeat};

use super::{Animation, Picture, Provenance};

/// Colours of a GIF palette.
const COLOURS_MAX: usize = 256;
/// Pixels that the palette is fitted to; one row of the quantiser's picture.
const SAMPLES_MAX: usize = u16::MAX as usize;
/// Of 1 (best) to 30 (fastest) of the NeuQuant quantiser; 10 is usual.
const QUANTISER_SPEED: i32 = 3;
/// Height of the dither in levels of 256, about the distance of neighbours in a fitted palette.
const DITHER_LEVELS: i32 = 20;
/// Bits of each channel by which nearest colours are remembered.
const CELL_BITS: u32 = 6;

/// Thresholds 0..64 of Bayer's matrix of order 8 (Bayer 1973): the bits of x^y and y, interleaved and reversed.
fn threshold(x: u32, y: u32) -> i32 {
    let bit = |value: u32, at: u32| (value >> at & 1) as i32;
    (0..3).fold(0, |sum, at| sum * 4 + bit(x ^ y, at) * 2 + bit(y, at))
}

pub(super) fn write(animation: &Animation, provenance: &Provenance, out: &mut dyn Write) -> io::Result<()> {
    encode(animation, provenance, out).map_err(|error| match error {
        EncodingError::Io(error) => error,
        other => io::Error::other(other),
    })
}

fn encode(animation: &Animation, provenance: &Provenance, out: &mut dyn Write) -> Result<(), EncodingError> {
    let side = |side: u32| u16::try_from(side).map_err(io::Error::other);
    let (width, height) = (side(animation.width())?, side(animation.height())?);
    let mut palette = Palette::fitted(&animation.frames);
    let mut encoder = Encoder::new(out, width, height, &palette.flat())?;
    if animation.frames.len() > 1 {
        encoder.set_repeat(Repeat::Infinite)?;
    }
    encoder.write_raw_extension(Extension::Comment.into(), &[provenance.description().as_bytes()])?;
    for (index, picture) in animation.frames.iter().enumerate() {
        let frame = Frame {
            delay: u16::try_from(animation.rate.shown(index, 100)).unwrap_or(u16::MAX),
            width,
            height,
            buffer: palette.drawn(picture).into(),
            ..Frame::default()
        };
        encoder.write_frame(&frame)?;
    }
    Ok(())
}

/// The colours of all frames, and which is nearest to what.
struct Palette {
    colours: Vec<[u8; 3]>,
    /// All colours of the frames are in it: nothing is dithered.
    exact: bool,
    /// Nearest colour of the middle of each cell; `u16::MAX` where it was not asked for yet.
    nearest: Vec<u16>,
}

impl Palette {
    fn fitted(frames: &[Picture]) -> Self {
        let pixels = || frames.iter().flat_map(|frame| frame.rgb.chunks_exact(3)).map(|p| [p[0], p[1], p[2]]);
        let mut found = BTreeSet::new();
        let exact = pixels().all(|pixel| {
            found.insert(pixel);
            found.len() <= COLOURS_MAX
        });
        let colours = if exact { found.into_iter().collect() } else { quantised(pixels(), total(frames)) };
        Self { colours, exact, nearest: vec![u16::MAX; 1 << (3 * CELL_BITS)] }
    }

    fn flat(&self) -> Vec<u8> {
        self.colours.concat()
    }

    /// Indices of a frame's pixels.
    fn drawn(&mut self, picture: &Picture) -> Vec<u8> {
        let mut indices = Vec::with_capacity(picture.rgb.len() / 3);
        for (row, y) in picture.rgb.chunks_exact(picture.width as usize * 3).zip(0..) {
            for (pixel, x) in row.chunks_exact(3).zip(0..) {
                let pixel = [pixel[0], pixel[1], pixel[2]];
                indices.push(if self.exact { self.index_of(pixel) } else { self.dithered(pixel, x, y) });
            }
        }
        indices
    }

    fn index_of(&self, pixel: [u8; 3]) -> u8 {
        let at = self.colours.binary_search(&pixel).expect("an exact palette holds every colour, in order");
        u8::try_from(at).expect("a palette has at most 256 colours")
    }

    fn dithered(&mut self, pixel: [u8; 3], x: u32, y: u32) -> u8 {
        let shift = (2 * threshold(x, y) - 63) * DITHER_LEVELS / 128;
        let moved = pixel.map(|level| (i32::from(level) + shift).clamp(0, 255) as u8);
        let drop = 8 - CELL_BITS;
        let cell = moved.iter().fold(0, |cell, &level| cell << CELL_BITS | usize::from(level >> drop));
        if self.nearest[cell] == u16::MAX {
            let middle = moved.map(|level| i32::from(level >> drop << drop) + (1 << (drop - 1)));
            self.nearest[cell] = u16::from(self.search(middle));
        }
        self.nearest[cell] as u8
    }

    fn search(&self, wanted: [i32; 3]) -> u8 {
        let distance = |colour: &[u8; 3]| {
            // Weights of the eye's sensitivity to red, green and blue, roughly 2 : 4 : 1.
            let part = |i: usize, weight: i32| weight * (i32::from(colour[i]) - wanted[i]).pow(2);
            part(0, 2) + part(1, 4) + part(2, 1)
        };
        let best = self.colours.iter().zip(0..=u8::MAX).min_by_key(|(colour, _)| distance(colour));
        best.map_or(0, |(_, index)| index)
    }
}

fn total(frames: &[Picture]) -> usize {
    frames.iter().map(|frame| frame.rgb.len() / 3).sum()
}

/// A palette fitted to evenly spaced pixels.
fn quantised(pixels: impl Iterator<Item = [u8; 3]>, total: usize) -> Vec<[u8; 3]> {
    // An odd stride visits different columns of each row.
    let stride = total.div_ceil(SAMPLES_MAX) | 1;
    let sample: Vec<u8> = pixels.step_by(stride).take(SAMPLES_MAX).flatten().collect();
    let count = u16::try_from(sample.len() / 3).expect("no more samples are taken");
    let frame = Frame::from_rgb_speed(count, 1, &sample, QUANTISER_SPEED);
    let palette = frame.palette.unwrap_or_default();
    palette.chunks_exact(3).take(COLOURS_MAX).map(|colour| [colour[0], colour[1], colour[2]]).collect()
}
