//! What is written is read back with independent decoders, and what strangers send cannot break the reader.

use std::io::Cursor;

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, ImageDecoder, ImageFormat, Rgba, RgbaImage};

use super::*;
use crate::RuntimeError;

const LIMITS: ReadLimits = ReadLimits { bytes_max: 1 << 20, pixels_max: 1 << 20 };

fn provenance() -> Provenance {
    Provenance { model: "tiny é".to_owned(), seed: 42, steps: 4, program: "headroom 0.1.0".to_owned() }
}

/// A moving gradient with a hard edge.
fn gradient(width: u32, height: u32, at: u32) -> Picture {
    let mut rgb = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let edge = if (x + at) % width < width / 3 { 200 } else { 0 };
            rgb.extend([(x * 255 / width) as u8, (y * 255 / height) as u8, edge as u8 + (at as u8 % 50)]);
        }
    }
    Picture::new(width, height, rgb)
}

fn animation(frames: u32) -> Animation {
    Animation::new((0..frames).map(|at| gradient(33, 21, at * 3)).collect(), FrameRate::MOTION)
}

fn written(animation: &Animation, format: Format) -> Vec<u8> {
    let mut bytes = Vec::new();
    animation.write(format, &provenance(), &mut bytes).unwrap();
    bytes
}

/// Frames with the milliseconds that each is shown, as the `image` crate reads them.
fn read_back(bytes: &[u8], format: Format) -> Vec<(RgbaImage, f64)> {
    let at = Cursor::new(bytes);
    let frames = match format {
        Format::Png => PngDecoder::new(at).unwrap().apng().unwrap().into_frames(),
        Format::Gif => GifDecoder::new(at).unwrap().into_frames(),
        Format::WebP => WebPDecoder::new(at).unwrap().into_frames(),
    };
    let frame = |frame: image::Frame| {
        let (numerator, denominator) = frame.delay().numer_denom_ms();
        (frame.into_buffer(), f64::from(numerator) / f64::from(denominator))
    };
    frames.map(|found| frame(found.unwrap())).collect()
}

fn rgb(image: &RgbaImage) -> Vec<u8> {
    image.pixels().flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2]]).collect()
}

#[test]
fn lossless_animations_come_back_whole() {
    let animation = animation(5);
    for format in [Format::Png, Format::WebP] {
        let found = read_back(&written(&animation, format), format);
        assert_eq!(found.len(), 5, "{format:?}");
        for ((image, shown_ms), frame) in found.iter().zip(animation.frames()) {
            assert_eq!(rgb(image), frame.rgb(), "{format:?}");
            assert!((shown_ms - 125.0).abs() < 1e-9, "{format:?}: {shown_ms} ms");
        }
    }
}

#[test]
fn still_pictures_come_back_whole() {
    let still = animation(1);
    for (format, kind) in [(Format::Png, ImageFormat::Png), (Format::WebP, ImageFormat::WebP)] {
        let image = image::load_from_memory_with_format(&written(&still, format), kind).unwrap();
        assert_eq!(image.to_rgb8().into_raw(), still.frames()[0].rgb(), "{format:?}");
        assert_eq!(Picture::read(&written(&still, format), LIMITS).unwrap(), still.frames()[0]);
    }
}

/// Peak signal-to-noise ratio, decibels.
fn fidelity(found: &[f64], expected: &[f64]) -> f64 {
    let squares: f64 = found.iter().zip(expected).map(|(a, b)| (a - b).powi(2)).sum();
    10.0 * (255.0_f64.powi(2) / (squares / expected.len() as f64)).log10()
}

/// Channels averaged over blocks of 8 x 8, as an eye does from afar.
fn blurred(rgb: &[u8], width: usize, height: usize) -> Vec<f64> {
    let mut means = Vec::new();
    for y in (0..height - 7).step_by(8) {
        for x in (0..width - 7).step_by(8) {
            for channel in 0..3 {
                let level = |i: usize| f64::from(rgb[((y + i / 8) * width + x + i % 8) * 3 + channel]);
                means.push((0..64).map(level).sum::<f64>() / 64.0);
            }
        }
    }
    means
}

#[test]
fn gif_of_many_colours_is_close_and_closer_from_afar() {
    let frames: Vec<Picture> = (0..3).map(|at| gradient(128, 96, at * 3)).collect();
    let animation = Animation::new(frames, FrameRate::MOTION);
    let found = read_back(&written(&animation, Format::Gif), Format::Gif);
    assert_eq!(found.iter().map(|(_, ms)| *ms).collect::<Vec<f64>>(), [130.0, 120.0, 130.0]);
    for ((image, _), frame) in found.iter().zip(animation.frames()) {
        let levels = |rgb: &[u8]| rgb.iter().map(|&level| f64::from(level)).collect::<Vec<f64>>();
        let near = fidelity(&levels(&rgb(image)), &levels(frame.rgb()));
        let far = fidelity(&blurred(&rgb(image), 128, 96), &blurred(frame.rgb(), 128, 96));
        assert!(near > 28.0 && far > near + 6.0, "{near} dB, {far} dB from afar");
    }
}

#[test]
fn gif_of_few_colours_is_exact() {
    let check = |colours: u32| {
        let rgb: Vec<u8> = (0..16 * 16_u32).flat_map(|i| [(i % colours) as u8, 7, 0]).collect();
        let animation = Animation::new(vec![Picture::new(16, 16, rgb.clone())], FrameRate::MOTION);
        let found = read_back(&written(&animation, Format::Gif), Format::Gif);
        assert_eq!(self::rgb(&found[0].0), rgb, "{colours} colours");
    };
    [1, 2, 3, 255, 256].into_iter().for_each(check);
}

#[test]
fn provenance_stands_in_every_format() {
    let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    for frames in [1, 3] {
        let bytes = written(&animation(frames), Format::Png);
        let decoder = ::png::Decoder::new(Cursor::new(&bytes));
        let reader = decoder.read_info().unwrap();
        let texts: Vec<(String, String)> =
            reader.info().utf8_text.iter().map(|t| (t.keyword.clone(), t.get_text().unwrap())).collect();
        assert_eq!(texts[0], ("XML:com.adobe.xmp".to_owned(), provenance().xmp()));
        assert_eq!(texts[1], ("Description".to_owned(), provenance().description()));

        let bytes = written(&animation(frames), Format::WebP);
        let mut decoder = WebPDecoder::new(Cursor::new(&bytes)).unwrap();
        let xmp = decoder.xmp_metadata().unwrap().unwrap();
        assert_eq!(String::from_utf8(xmp).unwrap(), provenance().xmp());

        let bytes = written(&animation(frames), Format::Gif);
        assert!(holds(&bytes, "Generated by AI: model tiny é, seed 42, 4 steps, headroom 0.1.0"));
    }
}

/// Red at the top left corner, else blue; with an EXIF orientation.
fn turned_jpeg(orientation: u8) -> Vec<u8> {
    let mut image = image::RgbImage::from_pixel(32, 16, image::Rgb([0, 0, 255]));
    for (x, y) in (0..8).flat_map(|x| (0..8).map(move |y| (x, y))) {
        image.put_pixel(x, y, image::Rgb([255, 0, 0]));
    }
    let mut bytes = Vec::new();
    image.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Jpeg).unwrap();
    // A TIFF directory with one entry: tag 0x0112, one 16-bit number.
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    let segment: Vec<u8> = [0xff, 0xe1].into_iter().chain(length).chain(exif).collect();
    bytes.splice(2..2, segment);
    bytes
}

#[test]
fn photographs_are_turned_as_exif_says() {
    let check = |orientation: u8, size: (u32, u32), corner: (u32, u32)| {
        let picture = Picture::read(&turned_jpeg(orientation), LIMITS).unwrap();
        assert_eq!((picture.width(), picture.height()), size, "{orientation}");
        let at = ((corner.1 * size.0 + corner.0) * 3) as usize;
        assert!(picture.rgb()[at] > 200 && picture.rgb()[at + 2] < 50, "{orientation}");
    };
    check(1, (32, 16), (2, 2));
    check(3, (32, 16), (29, 13));
    check(6, (16, 32), (13, 2));
    check(8, (16, 32), (2, 29));
}

#[test]
fn transparent_parts_are_seen_over_white() {
    let check = |alpha: u8, expected: [u8; 3]| {
        let mut bytes = Vec::new();
        let image = RgbaImage::from_pixel(2, 2, Rgba([0, 100, 200, alpha]));
        image.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
        assert_eq!(Picture::read(&bytes, LIMITS).unwrap().rgb()[..3], expected);
    };
    check(255, [0, 100, 200]);
    check(0, [255, 255, 255]);
    check(128, [127, 177, 227]);
}

/// The header of a PNG, of the sides and with the checksum stated.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let picture = Animation::new(vec![gradient(2, 2, 0)], FrameRate::MOTION);
    let mut bytes = written(&picture, Format::Png);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = bytes[12..29].iter().fold(!0_u32, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| sum >> 1 ^ if sum & 1 == 1 { 0xEDB8_8320 } else { 0 })
    });
    bytes[29..33].copy_from_slice(&(!checksum).to_be_bytes());
    bytes
}

#[test]
fn images_beyond_the_limits_are_bad_requests() {
    let check = |bytes: &[u8], limits: ReadLimits, part: &str| {
        let error = Picture::read(bytes, limits).unwrap_err();
        let bad = matches!(error, RuntimeError::BadRequest { .. });
        assert!(bad && error.to_string().contains(part), "{error}");
    };
    let small = written(&animation(1), Format::Png);
    check(&small, ReadLimits { bytes_max: 100, ..LIMITS }, "more than 100 bytes");
    check(&small, ReadLimits { pixels_max: 600, ..LIMITS }, "33 x 21 pixels; at most 600");
    check(&png_header(16_384, 16_384), LIMITS, "at most 1048576 are taken");
    check(&png_header(u32::MAX, 1), LIMITS, "cannot be decoded");
    check(&png_header(2, 3), LIMITS, "cannot be decoded");
    check(&small[..small.len() / 2], LIMITS, "cannot be decoded");
    check(&written(&animation(1), Format::Gif), LIMITS, "is no PNG, JPEG or WebP");
    check(b"", LIMITS, "is no PNG, JPEG or WebP");
    let absent = Picture::read_file(Path::new("/absent.png"), LIMITS).unwrap_err();
    assert!(absent.to_string().contains("image `/absent.png`: cannot be opened"), "{absent}");
}

#[test]
fn pictures_are_cut_to_the_shape_and_scaled() {
    let check = |size: (u32, u32), wanted: (u32, u32)| {
        let picture = Picture::new(size.0, size.1, vec![90; (size.0 * size.1 * 3) as usize]);
        let fitted = picture.fitted(wanted.0, wanted.1);
        assert_eq!((fitted.width(), fitted.height()), wanted);
        assert!(fitted.rgb().iter().all(|&level| level.abs_diff(90) <= 1), "{size:?} {wanted:?}");
    };
    check((33, 21), (16, 16));
    check((21, 33), (64, 32));
    check((1, 16_000), (512, 8));
    check((16_000, 1), (8, 512));
    check((8, 8), (8, 8));
    // The middle of three stripes is what is left of them.
    let stripes: Vec<u8> =
        (0..30).flat_map(|x| if (10..20).contains(&x) { [255, 0, 0] } else { [0, 0, 255] }).collect();
    let fitted = Picture::new(30, 1, stripes).fitted(4, 4);
    assert!(fitted.rgb()[0] > 250 && fitted.rgb()[2] < 5);
}

#[test]
fn random_bytes_never_panic() {
    let starts: Vec<Vec<u8>> = [Format::Png, Format::WebP]
        .into_iter()
        .map(|format| written(&animation(2), format))
        .chain([turned_jpeg(6), Vec::new()])
        .collect();
    let config = proptest::test_runner::Config::with_cases(300);
    proptest::proptest!(config, |(
        start in 0..starts.len(),
        changes in proptest::collection::vec((0.0..1.0_f64, proptest::prelude::any::<u8>()), 1..12),
        tail in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
        kept in 0.2..1.0_f64,
    )| {
        let mut bytes = starts[start].clone();
        bytes.truncate((bytes.len() as f64 * kept) as usize);
        bytes.extend(tail);
        for (at, byte) in changes {
            let at = (at * bytes.len() as f64) as usize;
            bytes.get_mut(at).into_iter().for_each(|place| *place = byte);
        }
        if let Ok(picture) = Picture::read(&bytes, LIMITS) {
            proptest::prop_assert!(picture.rgb().len() as u64 <= LIMITS.pixels_max * 3);
        }
    });
}
