// Gradients of operations on single elements or rows, sums of partial results, and the gradient of a matrix.
//
// Elementwise kernels take 256 threads a block and ceil(work / 256) blocks; V = 8 where every row starts at a multiple of
// 16 bytes.

struct GradientRowsArgs {
    const u16* of_out;
    const u16* input;
    u16* out;
    u64 rows;     // of out
    u32 channels; // of out; of the result, for gates
    u32 function; // 0 SiLU, 1 GELU (exact), 2 quick GELU
    u32 height;   // of out, where pixels move
    u32 width;
    u32 stride; // channels of the input, where some are taken
    u32 reserved;
};

// x / (1 + exp(-rate x)), differentiated: s (1 + rate x (1 - s)).
__device__ __forceinline__ float sigmoid_slope(float x, float rate) {
    float s = sigmoid(rate * x);
    return s * (1.0f + rate * x * (1.0f - s));
}

// x times the normal distribution, differentiated: distribution + x density.
__device__ __forceinline__ float gelu_slope(float x) {
    float density = 0.39894228f * exp2_fast(-0.72134752f * x * x);
    return 0.5f * (1.0f + erff(x * 0.70710678f)) + x * density;
}

template <int V> __device__ __forceinline__ void geglu_gradient(const GradientRowsArgs& a) {
    u64 row;
    u32 channel;
    if (!my_place<V>(a, row, channel))
        return;
    float x[V], gate[V], of_out[V];
    u64 at = row * 2 * a.channels + channel;
    load_vector<V>(x, a.input + at);
    load_vector<V>(gate, a.input + at + a.channels);
    load_vector<V>(of_out, a.of_out + row * a.channels + channel);
#pragma unroll
    for (int i = 0; i < V; i++) {
        float of_value = of_out[i] * gelu(gate[i]);
        gate[i] = of_out[i] * x[i] * gelu_slope(gate[i]);
        x[i] = of_value;
    }
    store_vector<V>(a.out + at, x);
    store_vector<V>(a.out + at + a.channels, gate);
}
BY_WIDTH(geglu_gradient, GradientRowsArgs, 1)

template <int V> __device__ __forceinline__ void activation_gradient(const GradientRowsArgs& a) {
    u64 row;
    u32 channel;
    if (!my_place<V>(a, row, channel))
        return;
    float x[V], of_out[V];
    u64 at = row * a.channels + channel;
    load_vector<V>(x, a.input + at);
    load_vector<V>(of_out, a.of_out + at);
#pragma unroll
    for (int i = 0; i < V; i++)
        x[i] = of_out[i] * (a.function == 1 ? gelu_slope(x[i]) : sigmoid_slope(x[i], a.function == 0 ? 1.0f : 1.702f));
    store_vector<V>(a.out + at, x);
}
BY_WIDTH(activation_gradient, GradientRowsArgs, 1)

// Every second pixel from the input, zeros between.
template <int V> __device__ __forceinline__ void spread(const GradientRowsArgs& a) {
    u64 row;
    u32 channel;
    if (!my_place<V>(a, row, channel))
        return;
    u64 line = row / a.width;
    u32 x = (u32)(row - line * a.width);
    u64 frame = line / a.height;
    u32 y = (u32)(line - frame * a.height);
    float value[V];
#pragma unroll
    for (int i = 0; i < V; i++)
        value[i] = 0.0f;
    if (!(x & 1) && !(y & 1)) {
        u64 from = (frame * ((a.height + 1) / 2) + y / 2) * ((a.width + 1) / 2) + x / 2;
        load_vector<V>(value, a.input + from * a.channels + channel);
    }
    store_vector<V>(a.out + row * a.channels + channel, value);
}
BY_WIDTH(spread, GradientRowsArgs, 1)

// Sums of 2 x 2 pixels.
template <int V> __device__ __forceinline__ void sum_of_four(const GradientRowsArgs& a) {
    u64 row;
    u32 channel;
    if (!my_place<V>(a, row, channel))
        return;
    u64 line = row / a.width;
    u64 corner = line * 2 * (2 * a.width) + 2 * (row - line * a.width);
    float sum[V], value[V];
    load_vector<V>(sum, a.input + corner * a.channels + channel);
#pragma unroll
    for (u32 part = 1; part < 4; part++) {
        load_vector<V>(value, a.input + (corner + (part & 1) + (part >> 1) * 2 * (u64)a.width) * a.channels + channel);
#pragma unroll
        for (int i = 0; i < V; i++)
            sum[i] += value[i];
    }
    store_vector<V>(a.out + row * a.channels + channel, sum);
}
BY_WIDTH(sum_of_four, GradientRowsArgs, 1)

// Some channels of every row; `input` points at the first.
template <int V> __device__ __forceinline__ void channels(const GradientRowsArgs& a) {
    u64 row;
    u32 channel;
    if (!my_place<V>(a, row, channel))
        return;
    const u16* from = a.input + row * a.stride + channel;
    if constexpr (V == 8)
        *(Vec16*)(a.out + row * a.channels + channel) = *(const Vec16*)from;
    else
        a.out[row * a.channels + channel] = *from;
}
BY_WIDTH(channels, GradientRowsArgs, 1)

struct SplitSumsArgs {
    const float* partial; // [splits][elements]
    void* out;
    u64 elements;
    u32 splits;
    u32 single; // 1: out is f32
};

KERNEL(split_sums, SplitSumsArgs, 256, 1) {
    u64 index = (u64)blockIdx.x * 256 + threadIdx.x;
    if (index >= a.elements)
        return;
    float sum = 0.0f;
    for (u32 split = 0; split < a.splits; split++)
        sum += a.partial[split * a.elements + index];
    if (a.single)
        ((float*)a.out)[index] = sum;
    else
        ((u16*)a.out)[index] = to_bf16(sum);
}

struct MatrixArgs {
    const u16* left;
    const u16* right;
    float* out;     // [left_channels][right_channels]
    float* partial; // [splits] of the same, where rows are split
    u32 rows;
    u32 left_channels;
    u32 right_channels;
    u32 split_rows; // a multiple of 64
    u32 splits;
    u32 reserved;
};

// out = left^T * right, a tile of 64 x 64 of it for each block of four warps, which take 16 rows of the tile each.
// Grid: (tiles across, tiles down, splits of the rows). Sums in f32; tolerance that of f32 sums of bf16 products, 1e-5.
template <bool ALIGNED> __device__ __forceinline__ void matrix(const MatrixArgs& a) {
    constexpr int TILE = 64, PITCH = TILE + 8, STAGE = 2 * TILE * PITCH;
    u16* shared = (u16*)dynamic_shared;
    u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    u32 right_first = blockIdx.x * TILE, left_first = blockIdx.y * TILE;
    u32 row_first = blockIdx.z * a.split_rows;
    u32 row_end = min(a.rows, row_first + a.split_rows);
    u32 tiles = row_first < row_end ? quotient_up(row_end - row_first, TILE) : 0;
    auto fetch = [&](u32 tile) {
        u16* to = shared + (tile & 1) * STAGE;
        u32 first = row_first + tile * TILE;
        fetch_rows<TILE, TILE, 128, ALIGNED>(to, a.left, a.left_channels, first, row_end, left_first, a.left_channels);
        fetch_rows<TILE, TILE, 128, ALIGNED>(to + TILE * PITCH, a.right, a.right_channels, first, row_end, right_first, a.right_channels);
    };
    float sum[TILE / 8][4];
    clear<TILE>(sum);
    if (tiles > 0)
        fetch(0);
    copy_commit();
    for (u32 tile = 0; tile < tiles; tile++) {
        copy_wait<0>();
        sync_block();
        if (tile + 1 < tiles)
            fetch(tile + 1);
        copy_commit();
        const u16* left = shared + (tile & 1) * STAGE;
        const u16* right = left + TILE * PITCH;
#pragma unroll
        for (int step = 0; step < TILE / 16; step++) {
            u32 l[4];
            load_matrices_transposed(l, left + (step * 16 + (lane & 7) + ((lane >> 4) << 3)) * PITCH + warp * 16 + ((lane >> 3) & 1) * 8);
#pragma unroll
            for (int j = 0; j < TILE / 16; j++) {
                u32 r[4];
                load_matrices_transposed(r, right + (step * 16 + (lane & 15)) * PITCH + j * 16 + (lane >> 4) * 8);
                mma_16x8x16(sum[2 * j], l, r[0], r[1]);
                mma_16x8x16(sum[2 * j + 1], l, r[2], r[3]);
            }
        }
    }
    float* out = a.splits > 1 ? a.partial + (u64)blockIdx.z * a.left_channels * a.right_channels : a.out;
#pragma unroll
    for (int j = 0; j < TILE / 8; j++)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            u32 row = left_first + warp * 16 + (lane >> 2) + (k >> 1) * 8;
            u32 column = right_first + j * 8 + (lane & 3) * 2 + (k & 1);
            if (row < a.left_channels && column < a.right_channels)
                out[(u64)row * a.right_channels + column] = sum[j][k];
        }
}
KERNEL(matrix_64, MatrixArgs, 128, 1) {
    matrix<true>(a);
}
KERNEL(matrix_64_any, MatrixArgs, 128, 1) {
    matrix<false>(a);
}
