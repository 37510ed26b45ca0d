//! AdamW with clipped gradients and a learning rate that warms up, then stays.

use super::adapter::{Adapters, Pair};

/// How steps are taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerSettings {
    /// Learning rate after warming up.
    pub learning_rate: f64,
    /// Steps over which the rate rises linearly; the n-th of them has n / `warm_up_steps` of it.
    pub warm_up_steps: u32,
    /// Share of a value, times the learning rate, that each step takes away.
    pub weight_decay: f64,
    /// Largest norm of all gradients together; longer ones are shortened to it.
    pub norm_max: f64,
}

/// Decay of the means of gradients and of their squares, and what is added to the root of the latter: the defaults of the
/// paper and of PyTorch.
const BETAS: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;

/// Added to a norm before it divides, as PyTorch's `clip_grad_norm_` does.
const NORM_EPSILON: f64 = 1e-6;

/// Decoupled weight decay regularization (Loshchilov and Hutter 2019, algorithm 2), with bias correction.
#[derive(Debug)]
pub(super) struct AdamW {
    settings: OptimizerSettings,
    steps: u32,
    /// Means of gradients and of their squares, one for each layer.
    moments: Vec<[Pair; 2]>,
}

impl AdamW {
    pub(super) fn new(settings: OptimizerSettings, adapters: &Adapters) -> Self {
        let zeros = adapters.layers.iter().map(|layer| [layer.pair.zeros(), layer.pair.zeros()]);
        Self { settings, steps: 0, moments: zeros.collect() }
    }

    /// For each layer the means of gradients and of their squares.
    pub(super) fn moments(&self) -> &[[Pair; 2]] {
        &self.moments
    }

    /// Goes on after so many steps that left these moments.
    pub(super) fn go_on(&mut self, steps: u32, moments: Vec<[Pair; 2]>) {
        assert_eq!(moments.len(), self.moments.len(), "moments of every layer");
        (self.steps, self.moments) = (steps, moments);
    }

    /// One step against the gradients; gives their norm before it was cut.
    pub(super) fn step(&mut self, adapters: &mut Adapters, gradients: &[Pair]) -> f64 {
        self.steps += 1;
        let all = gradients.iter().flat_map(|pair| pair.down.iter().chain(&pair.up));
        let norm = all.map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        let update = Update {
            rate: self.rate(),
            decay: self.settings.weight_decay,
            shortened: (self.settings.norm_max / (norm + NORM_EPSILON)).min(1.0),
            corrections: BETAS.map(|beta| 1.0 - beta.powi(self.steps.min(1 << 20) as i32)),
        };
        for ((layer, gradient), [mean, square]) in
            adapters.layers.iter_mut().zip(gradients).zip(&mut self.moments)
        {
            update.apply(&mut layer.pair.down, &gradient.down, &mut mean.down, &mut square.down);
            update.apply(&mut layer.pair.up, &gradient.up, &mut mean.up, &mut square.up);
        }
        norm
    }

    fn rate(&self) -> f64 {
        let warm = f64::from(self.steps) / f64::from(self.settings.warm_up_steps.max(1));
        self.settings.learning_rate * warm.min(1.0)
    }
}

/// The numbers of one step.
struct Update {
    rate: f64,
    decay: f64,
    /// Factor of all gradients.
    shortened: f64,
    corrections: [f64; 2],
}

impl Update {
    fn apply(&self, values: &mut [f32], gradients: &[f32], means: &mut [f32], squares: &mut [f32]) {
        let moments = means.iter_mut().zip(squares);
        for ((value, gradient), (mean, square)) in values.iter_mut().zip(gradients).zip(moments) {
            let gradient = f64::from(*gradient) * self.shortened;
            let m = BETAS[0] * f64::from(*mean) + (1.0 - BETAS[0]) * gradient;
            let v = BETAS[1] * f64::from(*square) + (1.0 - BETAS[1]) * gradient * gradient;
            (*mean, *square) = (m as f32, v as f32);
            let direction = (m / self.corrections[0]) / ((v / self.corrections[1]).sqrt() + EPSILON);
            *value = (f64::from(*value) * (1.0 - self.rate * self.decay) - self.rate * direction) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::adapter::Layer;

    fn one(value: f32) -> Adapters {
        let pair = Pair { down: vec![value], up: vec![0.0] };
        let layer = Layer { name: "unet/to_q".to_owned(), rows: 1, columns: 1, pair };
        Adapters { rank: 1, alpha: 1.0, layers: vec![layer] }
    }

    const PLAIN: OptimizerSettings =
        OptimizerSettings { learning_rate: 0.1, warm_up_steps: 0, weight_decay: 0.0, norm_max: 1e9 };

    /// The first step of Adam is the learning rate against the sign of the gradient, whatever its size.
    #[test]
    fn first_step_has_the_length_of_the_learning_rate() {
        let check = |settings: OptimizerSettings, expected: f64| {
            let mut adapters = one(1.0);
            let gradient = Pair { down: vec![3.0], up: vec![0.0] };
            let norm = AdamW::new(settings, &adapters).step(&mut adapters, &[gradient]);
            assert_eq!(norm, 3.0);
            let got = f64::from(adapters.layers[0].pair.down[0]);
            assert!((got - expected).abs() < 1e-6, "{settings:?}: {got} instead of {expected}");
            assert_eq!(adapters.layers[0].pair.up, [0.0]);
        };
        check(PLAIN, 0.9);
        check(OptimizerSettings { warm_up_steps: 4, ..PLAIN }, 0.975);
        check(OptimizerSettings { weight_decay: 0.5, ..PLAIN }, 0.85);
        check(OptimizerSettings { norm_max: 1e-3, ..PLAIN }, 0.9);
    }

    /// Against the recurrence by hand: gradients 1, then -2, the second cut to 0.5.
    #[test]
    fn clipped_gradients_enter_the_means() {
        let settings = OptimizerSettings { norm_max: 0.5, ..PLAIN };
        let mut adapters = one(0.0);
        let mut adam = AdamW::new(settings, &adapters);
        for gradient in [1.0, -2.0] {
            adam.step(&mut adapters, &[Pair { down: vec![gradient], up: vec![0.0] }]);
        }
        let m = 0.9 * 0.1 * 0.5 - 0.1 * 0.5;
        let v = 0.999 * 0.001 * 0.25 + 0.001 * 0.25;
        let second: f64 = -0.1 * (m / 0.19) / f64::sqrt(v / (1.0 - 0.999 * 0.999));
        let got = f64::from(adapters.layers[0].pair.down[0]);
        assert!((got - (-0.1 + second)).abs() < 1e-5, "{got} {second}");
    }
}
