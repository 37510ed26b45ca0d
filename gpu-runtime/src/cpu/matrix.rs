//! Matrix products in f32, over `gemm`'s part for f32 (its other number types would cost minutes of compilation). The only
//! unsafe call of the CPU backend.

use gemm_common::Parallelism;

use super::parallel::for_blocks;

/// Rows of one block of a product; fixed, so that results do not depend on the number of threads.
const BLOCK_ROWS: usize = 128;

/// A matrix within a slice: element (r, c) is `data[r * row_stride + c * column_stride]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    /// The slice, beginning with the first element.
    pub(crate) data: &'a [f32],
    /// Number of rows.
    pub(crate) rows: usize,
    /// Number of columns.
    pub(crate) columns: usize,
    /// Elements from one row to the next.
    pub(crate) row_stride: usize,
    /// Elements from one column to the next.
    pub(crate) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows that follow each other.
    pub(crate) fn rows(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// Rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    fn assert_inside(&self) {
        let last = (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride;
        assert!(last < self.data.len(), "a matrix of {} × {} is inside its slice", self.rows, self.columns);
    }
}

/// out = left · right · factor, or out += where `onto`; rows of `out` are `out_stride` apart.
pub(crate) fn multiply(
    out: &mut [f32],
    out_stride: usize,
    left: Matrix,
    right: Matrix,
    factor: f32,
    onto: bool,
) {
    let (rows, columns, depth) = (left.rows, right.columns, left.columns);
    assert!(rows > 0 && columns > 0 && depth > 0 && right.rows == depth, "extents of a product");
    assert!(columns <= out_stride && (rows - 1) * out_stride + columns <= out.len(), "room for a product");
    left.assert_inside();
    right.assert_inside();
    // SAFETY: the last element of each operand is inside its slice, as asserted; `out` is borrowed exclusively, so it
    // overlaps neither operand; all bit patterns are numbers.
    unsafe {
        // The kernels want columns that are dense in memory, so the transposed product is asked for: outᵀ = rightᵀ · leftᵀ.
        gemm_f32::gemm::f32::get_gemm_fn()(
            columns,
            rows,
            depth,
            out.as_mut_ptr(),
            out_stride as isize,
            1,
            onto,
            right.data.as_ptr(),
            right.row_stride as isize,
            right.column_stride as isize,
            left.data.as_ptr(),
            left.row_stride as isize,
            left.column_stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// The matrix of a product with rows of `depth` values: `[columns, depth]`, or `[depth, columns]` where it is turned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand<'a> {
    /// Row-major and dense.
    pub(super) values: &'a [f32],
    /// Whether its rows are what is multiplied with.
    pub(super) turned: bool,
    /// Values of an input row.
    pub(super) depth: usize,
}

/// out = input · matrixᵀ + bias + residual, all row-major and dense.
pub(super) fn linear(
    out: &mut [f32],
    input: &[f32],
    matrix: Operand<'_>,
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
    threads: usize,
) {
    let Operand { values, turned, depth } = matrix;
    let columns = values.len() / depth;
    let right = if turned {
        Matrix::rows(values, depth, columns, columns)
    } else {
        Matrix::rows(values, columns, depth, depth).transposed()
    };
    let work = (input.len() * columns) as u64;
    for_blocks(out, BLOCK_ROWS * columns, threads, work, |index, block| {
        let rows = block.len() / columns;
        fill(
            block,
            bias,
            residual.map(|all| &all[index * BLOCK_ROWS * columns..][..rows * columns]),
            columns,
        );
        let left = Matrix::rows(&input[index * BLOCK_ROWS * depth..], rows, depth, depth);
        multiply(block, columns, left, right, 1.0, true);
    });
}

/// What a product is added to: bias, residual, both or zero.
pub(super) fn fill(block: &mut [f32], bias: Option<&[f32]>, residual: Option<&[f32]>, columns: usize) {
    match residual {
        Some(residual) => block.copy_from_slice(residual),
        None => block.fill(0.0),
    }
    if let Some(bias) = bias {
        for row in block.chunks_exact_mut(columns) {
            row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_match_loops_at_odd_extents() {
        for (rows, columns, depth) in [(1, 1, 1), (1, 7, 5), (3, 1, 2), (5, 3, 9), (130, 17, 33)] {
            let value = |n: usize| ((n * 37 % 19) as f32 - 9.0) / 8.0;
            let input: Vec<f32> = (0..rows * depth).map(value).collect();
            let weight: Vec<f32> = (0..columns * depth).map(|n| value(n + 5)).collect();
            let bias: Vec<f32> = (0..columns).map(|n| value(n + 3)).collect();
            let residual: Vec<f32> = (0..rows * columns).map(|n| value(n + 1)).collect();
            let mut out = vec![f32::NAN; rows * columns];
            let matrix = Operand { values: &weight, turned: false, depth };
            linear(&mut out, &input, matrix, Some(&bias), Some(&residual), 1);
            for r in 0..rows {
                for c in 0..columns {
                    let sum: f32 = (0..depth).map(|k| input[r * depth + k] * weight[c * depth + k]).sum();
                    let expected = sum + bias[c] + residual[r * columns + c];
                    assert!((out[r * columns + c] - expected).abs() < 1e-4, "{rows} {columns} {depth}");
                }
            }
        }
    }
}
