//! Least squares by search: a simplex that walks downhill, and small linear systems.

/// Most steps of one walk.
const STEPS_MAX: usize = 400;
/// A walk ends when the best and the worst corner differ by less than this share.
const FLATNESS: f64 = 1e-9;

/// Minimises `cost` from `start` with first steps `step` (Nelder and Mead, Computer Journal 7, 1965, with
/// their coefficients 1, 2, 0.5, 0.5). Returns the best point and its cost; not a global minimum.
pub(super) fn minimise<const N: usize>(
    start: [f64; N],
    step: [f64; N],
    cost: impl Fn(&[f64; N]) -> f64,
) -> ([f64; N], f64) {
    let mut corners = vec![(start, cost(&start))];
    for axis in 0..N {
        let mut corner = start;
        corner[axis] += step[axis];
        corners.push((corner, cost(&corner)));
    }
    for _ in 0..STEPS_MAX {
        corners.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (best, worst) = (corners[0].1, corners[N].1);
        if worst - best <= FLATNESS * best.abs() {
            break;
        }
        let mut centre = [0.0; N];
        for (corner, _) in &corners[..N] {
            (0..N).for_each(|axis| centre[axis] += corner[axis] / N as f64);
        }
        let along = |factor: f64| {
            let point: [f64; N] =
                std::array::from_fn(|axis| centre[axis] + factor * (corners[N].0[axis] - centre[axis]));
            (point, cost(&point))
        };
        let reflected = along(-1.0);
        let next = if reflected.1 < best {
            let expanded = along(-2.0);
            if expanded.1 < reflected.1 { expanded } else { reflected }
        } else if reflected.1 < corners[N - 1].1 {
            reflected
        } else {
            along(if reflected.1 < worst { -0.5 } else { 0.5 })
        };
        if next.1 < worst {
            corners[N] = next;
            continue;
        }
        let best = corners[0].0;
        for (corner, value) in &mut corners[1..] {
            (0..N).for_each(|axis| corner[axis] = (corner[axis] + best[axis]) / 2.0);
            *value = cost(corner);
        }
    }
    corners.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).expect("a simplex has corners")
}

/// Solves `a x = b` by elimination with row pivots; `None` when `a` is singular.
pub(super) fn solve<const N: usize>(mut a: [[f64; N]; N], mut b: [f64; N]) -> Option<[f64; N]> {
    for column in 0..N {
        let pivot = (column..N).max_by(|i, j| a[*i][column].abs().total_cmp(&a[*j][column].abs()))?;
        if a[pivot][column].abs() < 1e-300 {
            return None;
        }
        a.swap(column, pivot);
        b.swap(column, pivot);
        for row in column + 1..N {
            let factor = a[row][column] / a[column][column];
            (column..N).for_each(|k| a[row][k] -= factor * a[column][k]);
            b[row] -= factor * b[column];
        }
    }
    let mut x = [0.0; N];
    for row in (0..N).rev() {
        let known: f64 = (row + 1..N).map(|k| a[row][k] * x[k]).sum();
        x[row] = (b[row] - known) / a[row][row];
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simplex_finds_the_valley() {
        // Rosenbrock's valley, minimum 0 at (1, 1).
        let cost = |p: &[f64; 2]| 100.0 * (p[1] - p[0] * p[0]).powi(2) + (1.0 - p[0]).powi(2);
        let (point, value) = minimise([-1.2, 1.0], [0.5, 0.5], cost);
        assert!(value < 1e-8 && (point[0] - 1.0).abs() < 1e-3 && (point[1] - 1.0).abs() < 1e-3, "{point:?}");
    }

    #[test]
    fn linear_systems_are_solved() {
        let x = solve([[0.0, 2.0, 1.0], [1.0, 1.0, 1.0], [2.0, 0.0, -1.0]], [7.0, 6.0, -1.0]).unwrap();
        assert!(x.iter().zip([1.0, 2.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{x:?}");
        assert_eq!(solve([[1.0, 2.0], [2.0, 4.0]], [1.0, 2.0]), None);
    }
}
