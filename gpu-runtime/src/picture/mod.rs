//! Pictures in and out: PNG, APNG, GIF, animated WebP, JPEG, with provenance in the metadata. Knows nothing of models, but
//! for the range of numbers that they take.

mod antialias;
mod gif;
mod png;
mod provenance;
mod read;
mod webp;

use std::io::{self, Write};
use std::path::Path;

pub use provenance::Provenance;
pub use read::ReadLimits;

/// Longest side of a picture of ours; WebP's limit.
pub const SIDE_MAX: u32 = 16_384;

/// A picture of 8-bit sRGB pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Picture {
    /// A picture of the given pixels: rows from the top, three bytes each.
    ///
    /// # Panics
    /// A side is 0 or above [`SIDE_MAX`], or the pixels do not fill the sides.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Self {
        assert!((1..=SIDE_MAX).contains(&width), "a picture {width} wide");
        assert!((1..=SIDE_MAX).contains(&height), "a picture {height} high");
        assert_eq!(
            rgb.len() as u64,
            u64::from(width) * u64::from(height) * 3,
            "bytes of {width} x {height} pixels"
        );
        Self { width, height, rgb }
    }

    /// A picture of what an image decoder gives: `[1, height, width, 3]` in -1..=1, values outside held at the ends,
    /// rounded to the nearest of 256 levels, ties to even.
    ///
    /// # Panics
    /// As [`Picture::new`].
    pub fn from_model(width: u32, height: u32, values: &[f32]) -> Self {
        let level = |value: &f32| ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        Self::new(width, height, values.iter().map(level).collect())
    }

    /// What an image encoder takes: `[1, height, width, 3]` in -1..=1.
    pub fn to_model(&self) -> Vec<f32> {
        self.rgb.iter().map(|&level| f32::from(level) / 127.5 - 1.0).collect()
    }

    /// Pixels per row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Rows from the top, three bytes a pixel.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

/// How fast frames follow each other: `frames` in `seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRate {
    frames: u16,
    seconds: u16,
}

impl FrameRate {
    /// What motion models were trained with: 8 frames a second.
    pub const MOTION: Self = Self { frames: 8, seconds: 1 };

    /// So many frames in so many seconds.
    ///
    /// # Panics
    /// One of the two is 0.
    pub fn new(frames: u16, seconds: u16) -> Self {
        assert!(frames > 0 && seconds > 0, "{frames} frames in {seconds} s");
        Self { frames, seconds }
    }

    /// How long frame `index` is shown, in units of which a second has `per_second`. Sums never drift from the rate by more
    /// than half a unit.
    fn shown(self, index: usize, per_second: u32) -> u32 {
        let at = |index: usize| {
            let (frames, seconds) = (u64::from(self.frames), u64::from(self.seconds));
            (2 * index as u64 * seconds * u64::from(per_second) + frames) / (2 * frames)
        };
        u32::try_from(at(index + 1) - at(index)).unwrap_or(u32::MAX)
    }
}

/// Pictures of one size that follow each other, for ever repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Animation {
    frames: Vec<Picture>,
    rate: FrameRate,
}

impl Animation {
    /// The frames at a rate. One frame is a still picture.
    ///
    /// # Panics
    /// There is none, or sizes differ.
    pub fn new(frames: Vec<Picture>, rate: FrameRate) -> Self {
        let first = frames.first().expect("an animation has a frame");
        let size = (first.width, first.height);
        assert!(
            frames.iter().all(|frame| (frame.width, frame.height) == size),
            "frames of one size {size:?}"
        );
        Self { frames, rate }
    }

    /// The pictures.
    pub fn frames(&self) -> &[Picture] {
        &self.frames
    }

    /// Writes the animation, with where it comes from.
    ///
    /// # Errors
    /// `out` takes no more.
    pub fn write(&self, format: Format, provenance: &Provenance, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Png => png::write(self, provenance, out),
            Format::Gif => gif::write(self, provenance, out),
            Format::WebP => webp::write(self, provenance, out),
        }
    }

    fn width(&self) -> u32 {
        self.frames[0].width
    }

    fn height(&self) -> u32 {
        self.frames[0].height
    }
}

/// A file format that animations can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lossless; several frames make an APNG, which viewers that do not know it show as its first frame.
    Png,
    /// 256 colours, for all frames together.
    Gif,
    /// Lossless.
    WebP,
}

impl Format {
    /// The format that the ending of a path names: `png`, `apng`, `gif` or `webp`.
    pub fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "png" | "apng" => Some(Self::Png),
            "gif" => Some(Self::Gif),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Gif => "image/gif",
            Self::WebP => "image/webp",
        }
    }
}

#[cfg(test)]
mod round_trip_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_values_become_the_nearest_level() {
        let check = |value: f32, level: u8| {
            assert_eq!(Picture::from_model(1, 1, &[value; 3]).rgb(), [level; 3], "{value}");
        };
        check(-1.0, 0);
        check(1.0, 255);
        check(-9.0, 0);
        check(f32::INFINITY, 255);
        check(0.0, 128);
        check(f32::NAN, 0);
        let levels: Vec<u8> = (0..=254).collect();
        let picture = Picture::new(85, 1, levels.clone());
        assert_eq!(Picture::from_model(85, 1, &picture.to_model()).rgb(), levels);
    }

    #[test]
    fn frame_times_keep_to_the_rate() {
        let check = |rate: FrameRate, per_second: u32, expected: &[u32]| {
            let shown: Vec<u32> = (0..expected.len()).map(|i| rate.shown(i, per_second)).collect();
            assert_eq!(shown, expected, "{rate:?}");
        };
        check(FrameRate::MOTION, 1000, &[125, 125, 125]);
        check(FrameRate::MOTION, 100, &[13, 12, 13, 12]);
        check(FrameRate::new(24, 1), 1000, &[42, 41, 42, 42, 41, 42]);
        check(FrameRate::new(1, 2), 100, &[200, 200]);
    }

    #[test]
    fn endings_name_formats() {
        let check = |path: &str, expected: Option<Format>| {
            assert_eq!(Format::of(Path::new(path)), expected, "{path}")
        };
        check("a.PNG", Some(Format::Png));
        check("b/a.apng", Some(Format::Png));
        check("a.gif", Some(Format::Gif));
        check("a.webp", Some(Format::WebP));
        check("a.mp4", None);
        check("png", None);
    }
}
