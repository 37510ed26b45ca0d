//! Scaling as image-to-video pipelines do before their image encoder: a Gaussian blur, then bicubic interpolation between
//! corners (diffusers' `_resize_with_antialiasing`, torch's `interpolate`). What models were trained with, not what
//! looks best: [`Picture::fitted`] is for that.

use super::Picture;

/// Cubic convolution's free parameter, torch's value.
const SHARPNESS: f64 = -0.75;
/// Deviation of the blur where nothing is shrunk.
const DEVIATION_MIN: f64 = 0.001;

impl Picture {
    /// The whole picture as a square, `[1, side, side, 3]` in 0..=1 but for the overshoot of the interpolation.
    ///
    /// # Panics
    /// `side` is 0.
    #[must_use]
    pub fn antialiased(&self, side: u32) -> Vec<f64> {
        assert!(side > 0, "a picture without pixels");
        let (width, height, side) = (self.width as usize, self.height as usize, side as usize);
        let levels: Vec<f64> = self.rgb.iter().map(|&level| f64::from(level) / 255.0).collect();
        let (across, down) = (Axis { lines: height, length: width, step: 3 }, Axis::down(height, width));
        let blurred = across.blurred(&levels, &blur(width, side));
        let blurred = down.blurred(&blurred, &blur(height, side));
        let narrow = across.scaled(&blurred, side);
        Axis::down(height, side).scaled(&narrow, side)
    }
}

/// Pixels along rows or columns of a picture of three levels a pixel.
#[derive(Clone, Copy)]
struct Axis {
    /// Rows, where the axis goes along them; else 1, a line being all columns.
    lines: usize,
    /// Pixels along the axis.
    length: usize,
    /// Levels from one of them to the next.
    step: usize,
}

impl Axis {
    fn down(height: usize, width: usize) -> Self {
        Self { lines: 1, length: height, step: 3 * width }
    }

    /// Sums of weighted neighbours: `taps` gives, for a place along the result's axis, the places of the source with
    /// their weights.
    fn gathered(self, from: &[f64], length: usize, taps: impl Fn(usize) -> Vec<(usize, f64)>) -> Vec<f64> {
        let taps: Vec<_> = (0..length).map(taps).collect();
        let mut out = Vec::with_capacity(self.lines * length * self.step);
        for line in from.chunks_exact(self.length * self.step) {
            for taps in &taps {
                out.extend((0..self.step).map(|level| {
                    taps.iter().map(|&(at, weight)| weight * line[at * self.step + level]).sum::<f64>()
                }));
            }
        }
        out
    }

    /// Beyond its ends the picture is mirrored, without repeating the last pixel.
    fn blurred(self, from: &[f64], kernel: &[f64]) -> Vec<f64> {
        let reach = kernel.len() / 2;
        let last = self.length - 1;
        let mirrored = |at: usize| {
            // `at` counts from `reach` before the first pixel.
            let inside = at.abs_diff(reach);
            if inside > last { (2 * last).saturating_sub(inside) } else { inside }
        };
        self.gathered(from, self.length, |place| {
            kernel.iter().enumerate().map(|(n, &weight)| (mirrored(place + n), weight)).collect()
        })
    }

    fn scaled(self, from: &[f64], side: usize) -> Vec<f64> {
        let last = self.length - 1;
        // Places are computed in f32, as torch does: at 500 pixels its rounding is 10⁻⁵ of a pixel.
        let scale = if side > 1 { last as f32 / (side - 1) as f32 } else { 0.0 };
        self.gathered(from, side, |place| {
            let at = scale * place as f32;
            let whole = at.floor();
            let weights = cubic(f64::from(at - whole));
            let first = whole as usize;
            let near = |n: usize| (first + n).saturating_sub(1).min(last);
            weights.iter().enumerate().map(|(n, &weight)| (near(n), weight)).collect()
        })
    }
}

/// Gaussian of deviation (factor − 1) / 2, cut at two deviations, for shrinking `length` pixels to `side`.
fn blur(length: usize, side: usize) -> Vec<f64> {
    let deviation = ((length as f64 / side as f64 - 1.0) / 2.0).max(DEVIATION_MIN);
    let taps = ((4.0 * deviation).max(3.0) as usize) | 1;
    let reach = (taps / 2) as f64;
    let weight = |n: usize| {
        let distance = n as f64 - reach;
        libm::exp(-distance * distance / (2.0 * deviation * deviation))
    };
    let weights: Vec<f64> = (0..taps).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Weights of the four pixels around a place `t` of the way from the second to the third (Keys 1981).
fn cubic(t: f64) -> [f64; 4] {
    let a = SHARPNESS;
    let near = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_picture_stays_uniform() {
        for (width, height, side) in [(1, 1, 4), (1, 9, 5), (2, 3, 1), (40, 7, 5), (5, 5, 5)] {
            let picture = Picture::new(width, height, vec![51; (width * height * 3) as usize]);
            let levels = picture.antialiased(side);
            assert_eq!(levels.len(), (side * side * 3) as usize);
            assert!(levels.iter().all(|level| (level - 0.2).abs() < 1e-12), "{width} {height} {side}");
        }
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let rgb: Vec<u8> = (0..75).map(|n| (n * 37 % 256) as u8).collect();
        let levels = Picture::new(5, 5, rgb.clone()).antialiased(5);
        for (level, byte) in levels.iter().zip(rgb) {
            assert!((level - f64::from(byte) / 255.0).abs() < 1e-6);
        }
    }

    #[test]
    fn blurs_widen_with_the_factor() {
        for (length, side, taps) in [(100, 224, 3), (500, 224, 3), (224 * 4, 224, 7), (2048, 224, 17)] {
            assert_eq!(blur(length, side).len(), taps, "{length} to {side}");
        }
    }
}
