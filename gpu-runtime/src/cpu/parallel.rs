//! Work cut into blocks of fixed size, spread over threads. Which thread computes a block changes no result.

use std::thread;

/// Work, in multiply-adds or so, below which threads are not started: some 50 us of matrix products at the 80 GFLOP/s that
/// one core reached (convolution of 320 channels, 64 × 64, release build). Starting a thread is taken as 10 to 20 us.
const WORTH_THREADS: u64 = 2_000_000;

/// Runs `compute(index, block)` for every block of `length` elements of `out` (the last may be shorter).
///
/// `work` is the number of multiply-adds of all blocks together.
pub(crate) fn for_blocks<F>(out: &mut [f32], length: usize, threads: usize, work: u64, compute: F)
where
    F: Fn(usize, &mut [f32]) + Sync,
{
    let blocks = out.len().div_ceil(length);
    let threads = if work < WORTH_THREADS { 1 } else { threads.min(blocks) };
    if threads <= 1 {
        out.chunks_mut(length).enumerate().for_each(|(index, block)| compute(index, block));
        return;
    }
    let each = blocks.div_ceil(threads);
    thread::scope(|scope| {
        for (share, part) in out.chunks_mut(each * length).enumerate() {
            let compute = &compute;
            scope.spawn(move || {
                part.chunks_mut(length)
                    .enumerate()
                    .for_each(|(index, block)| compute(share * each + index, block));
            });
        }
    });
}

/// Results of `compute(index)` for `0..blocks`, in order.
pub(crate) fn map_blocks<T, F>(blocks: usize, threads: usize, work: u64, compute: F) -> Vec<T>
where
    T: Send,
    F: Fn(usize) -> T + Sync,
{
    let threads = if work < WORTH_THREADS { 1 } else { threads.min(blocks) };
    if threads <= 1 {
        return (0..blocks).map(compute).collect();
    }
    let each = blocks.div_ceil(threads);
    let compute = &compute;
    thread::scope(|scope| {
        let shares: Vec<_> = (0..threads)
            .map(|share| {
                let range = share * each..blocks.min((share + 1) * each);
                scope.spawn(move || range.map(compute).collect::<Vec<T>>())
            })
            .collect();
        shares
            .into_iter()
            .flat_map(|share| share.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
