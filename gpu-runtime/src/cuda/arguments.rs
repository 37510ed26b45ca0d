//! The parameters of the kernels, field by field as in `kernels/*.cu`. Their sizes are compared when a module loads.
//!
//! Addresses are of device memory; zero stands for a null pointer.

/// A struct that a kernel takes by value.
///
/// # Safety
/// The type is `repr(C)`, has no padding bytes and an alignment of at most 8.
pub(super) unsafe trait Arguments: Copy + 'static {}

macro_rules! arguments {
    ($(#[$about:meta])* $name:ident { $($field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default, PartialEq)]
        pub(super) struct $name { $(pub(super) $field: $kind,)* }
        const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$kind>())*, "padding bytes");
        // SAFETY: repr(C), and the assertion above excludes padding.
        unsafe impl Arguments for $name {}
    };
}

arguments! {
    /// `GemmArgs` of `gemm.cu`.
    Gemm {
        input: u64,
        weight: u64,
        bias: u64,
        channel_add: u64,
        residual: u64,
        out: u64,
        partial: u64,
        rows: u32,
        columns: u32,
        inner: u32,
        channels: u32,
        channels_padded: u32,
        in_height: u32,
        in_width: u32,
        out_height: u32,
        out_width: u32,
        side: u32,
        stride: u32,
        pad_top: u32,
        pad_left: u32,
        doubling: u32,
        channel_add_stride: u32,
        inner_per_split: u32,
        splits: u32,
        gate: u32,
        add_rows: u32,
        reserved: u32,
    }
}

arguments! {
    /// `GroupShape` of `statistics.cu`.
    GroupShape {
        rows: u32,
        channels: u32,
        groups: u32,
        chunks: u32,
        chunk_rows: u32,
        silu: u32,
        eps: f32,
        reserved: u32,
    }
}

arguments! {
    /// `GroupNormArgs` of `norm.cu`.
    GroupNorm {
        input: u64,
        gamma: u64,
        beta: u64,
        out: u64,
        partial: u64,
        shape: GroupShape,
    }
}

arguments! {
    /// `LayerNormArgs` of `norm.cu`.
    LayerNorm {
        input: u64,
        gamma: u64,
        beta: u64,
        out: u64,
        rows: u32,
        channels: u32,
        eps: f32,
        reserved: u32,
    }
}

arguments! {
    /// `AttentionArgs` of `attention.cu`.
    Attention {
        query: u64,
        key: u64,
        value: u64,
        out: u64,
        query_outer: u64,
        key_outer: u64,
        value_outer: u64,
        out_outer: u64,
        query_token: u32,
        key_token: u32,
        value_token: u32,
        out_token: u32,
        query_position: u32,
        key_position: u32,
        value_position: u32,
        out_position: u32,
        positions: u32,
        heads: u32,
        head_width: u32,
        queries: u32,
        keys: u32,
        causal: u32,
        scale: f32,
        reserved: u32,
    }
}

arguments! {
    /// `RowsArgs` of `elementwise.cu`.
    Rows {
        left: u64,
        right: u64,
        out: u64,
        rows: u64,
        channels: u32,
        left_channels: u32,
        rows_per_frame: u32,
        frames_per_clip: u32,
        function: u32,
        reserved: u32,
    }
}

arguments! {
    /// `EmbedArgs` of `elementwise.cu`.
    Embed {
        ids: u64,
        tokens: u64,
        positions: u64,
        out: u64,
        count: u32,
        channels: u32,
        vocabulary: u32,
        reserved: u32,
    }
}

arguments! {
    /// `CombineArgs` of `elementwise.cu`.
    Combine {
        term: [u64; 4],
        out: u64,
        coefficients: u64,
        elements: u64,
        terms: u32,
        single: u32,
    }
}

arguments! {
    /// `GroupNormGradientArgs` of `norm_gradient.cu`.
    GroupNormGradient {
        of_out: u64,
        input: u64,
        residual: u64,
        gamma: u64,
        beta: u64,
        out: u64,
        partial: u64,
        sums: u64,
        shape: GroupShape,
    }
}

arguments! {
    /// `LayerNormGradientArgs` of `norm_gradient.cu`.
    LayerNormGradient {
        of_out: u64,
        input: u64,
        residual: u64,
        gamma: u64,
        out: u64,
        rows: u32,
        channels: u32,
        eps: f32,
        reserved: u32,
    }
}

arguments! {
    /// `AttentionGradientArgs` of `attention_gradient.cu`.
    AttentionGradients {
        query: u64,
        key: u64,
        value: u64,
        result: u64,
        of_out: u64,
        rows: u64,
        out: u64,
        partial: u64,
        elements: u64,
        query_outer: u64,
        key_outer: u64,
        value_outer: u64,
        result_outer: u64,
        rows_outer: u64,
        out_outer: u64,
        query_token: u32,
        key_token: u32,
        value_token: u32,
        result_token: u32,
        rows_token: u32,
        out_token: u32,
        query_position: u32,
        key_position: u32,
        value_position: u32,
        result_position: u32,
        rows_position: u32,
        out_position: u32,
        positions: u32,
        heads: u32,
        head_width: u32,
        queries: u32,
        keys: u32,
        causal: u32,
        frames: u32,
        value_first: u32,
        splits: u32,
        split_tiles: u32,
        scale: f32,
        factor: f32,
    }
}

arguments! {
    /// `GradientRowsArgs` of `gradient.cu`.
    GradientRows {
        of_out: u64,
        input: u64,
        out: u64,
        rows: u64,
        channels: u32,
        function: u32,
        height: u32,
        width: u32,
        stride: u32,
        reserved: u32,
    }
}

arguments! {
    /// `SplitSumsArgs` of `gradient.cu`.
    SplitSums {
        partial: u64,
        out: u64,
        elements: u64,
        splits: u32,
        single: u32,
    }
}

arguments! {
    /// `MatrixArgs` of `gradient.cu`.
    MatrixGradient {
        left: u64,
        right: u64,
        out: u64,
        partial: u64,
        rows: u32,
        left_channels: u32,
        right_channels: u32,
        split_rows: u32,
        splits: u32,
        reserved: u32,
    }
}

/// One kernel launch: everything the driver is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block, along x.
    pub threads: u32,
    /// Dynamic shared memory of a block in bytes.
    pub shared_bytes: u32,
    /// The parameter, as words of eight bytes.
    pub(super) arguments: Box<[u64]>,
    /// Its size in bytes.
    pub(super) argument_bytes: usize,
}

impl Launch {
    pub(super) fn new<A: Arguments>(
        kernel: &'static str,
        grid: [u32; 3],
        threads: u32,
        shared_bytes: u32,
        arguments: &A,
    ) -> Self {
        let bytes = size_of::<A>();
        let mut words = vec![0u64; bytes.div_ceil(8)].into_boxed_slice();
        // SAFETY: `Arguments` promises a plain struct without padding; `words` has room for its bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(
                std::ptr::from_ref(arguments).cast::<u8>(),
                words.as_mut_ptr().cast::<u8>(),
                bytes,
            );
        }
        Self { kernel, grid, threads, shared_bytes, arguments: words, argument_bytes: bytes }
    }
}
