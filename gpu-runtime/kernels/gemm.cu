// Convolutions and linear layers: one implicit matrix product over tensor cores (mma.sync, and wgmma on Hopper), bf16
// in, f32 sums.
//
// Rows are output positions (frames x height x width), columns output channels, the inner axis is
// (kernel row, kernel column, input channel); channels last, weights KRSC with channels padded to a multiple of 8.
// A convolution across frames is one over pictures with frames as rows and positions as columns.
// Grid: (ceil(columns / BN) * ceil(rows / BM) with columns first, 1, splits of the inner axis). Tolerance against f32: the rounding of bf16
// outputs plus that of the inputs' products' sums, 2^-8 relative to the tensor's norm.

struct GemmArgs {
    const u16* input;
    const u16* weight;
    const u16* bias;        // or null
    const u16* channel_add; // or null
    const u16* residual;    // or null
    u16* out;
    float* partial; // [splits][rows][columns] when splits > 1
    u32 rows;
    u32 columns;
    u32 inner;           // side * side * channels_padded
    u32 channels;        // of the input
    u32 channels_padded; // of a tap in the weight, a multiple of 8
    u32 in_height;       // as stored, before doubling
    u32 in_width;
    u32 out_height;
    u32 out_width;
    u32 side;
    u32 stride;
    u32 pad_top;
    u32 pad_left;
    u32 doubling;           // 1: nearest-neighbour doubling of both sides
    u32 channel_add_stride; // elements from one frame's row to the next; 0 when all frames share one
    u32 inner_per_split;    // a multiple of 64
    u32 splits;
    u32 gate; // 1: columns are 8 values, then their 8 gates, and so on; half as many are stored (linear layers only)
    u32 add_rows; // rows that share a row of channel_add
    u32 reserved;
};

constexpr int BK = 64; // inner elements of a tile: 128 bytes, eight 16-byte chunks

// Byte offset of a 16-byte chunk in a tile with rows of 128 bytes, swizzled so that eight rows fill all banks.
__device__ __forceinline__ u32 chunk_offset(u32 row, u32 chunk) {
    return row * 128 + ((chunk ^ (row & 7)) << 4);
}

// Adds what follows the product and stores V columns from `column` on.
template <int V> __device__ __forceinline__ void finish(const GemmArgs& a, u32 row, u32 column, float (&x)[V]) {
    float y[V];
    if (a.bias) {
        load_vector<V>(y, a.bias + column);
#pragma unroll
        for (int i = 0; i < V; i++)
            x[i] += y[i];
    }
    if (a.channel_add) {
        load_vector<V>(y, a.channel_add + (u64)(row / a.add_rows) * a.channel_add_stride + column);
#pragma unroll
        for (int i = 0; i < V; i++)
            x[i] += y[i];
    }
    u64 at = (u64)row * a.columns + column;
    if (a.residual) {
        load_vector<V>(y, a.residual + at);
#pragma unroll
        for (int i = 0; i < V; i++)
            x[i] += y[i];
    }
    store_vector<V>(a.out + at, x);
}

// The rows of the input tile that one thread fetches, and where in the inner axis it stands.
template <int ROWS, bool LINEAR> struct Gather {
    u64 base[ROWS]; // first element of the frame (convolution) or of the row (linear)
    int y[ROWS];    // input row and column of the kernel's first tap
    int x[ROWS];
    bool valid[ROWS];
    u32 inner; // position of this thread's chunk in the inner axis
    u32 tap;
    u32 channel;

    __device__ __forceinline__ Gather(const GemmArgs& a, u32 row_first, u32 row_step, u32 inner_first) {
        inner = inner_first;
        tap = LINEAR ? 0 : inner_first / a.channels_padded;
        channel = LINEAR ? inner_first : inner_first - tap * a.channels_padded;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            u32 row = row_first + i * row_step;
            valid[i] = row < a.rows;
            if (!valid[i])
                row = 0;
            if constexpr (LINEAR) {
                base[i] = (u64)row * a.channels;
                y[i] = x[i] = 0;
            } else {
                u32 positions = a.out_height * a.out_width;
                u32 frame = row / positions;
                u32 position = row - frame * positions;
                u32 out_y = position / a.out_width;
                base[i] = (u64)frame * a.in_height * a.in_width * a.channels;
                y[i] = (int)(out_y * a.stride) - (int)a.pad_top;
                x[i] = (int)((position - out_y * a.out_width) * a.stride) - (int)a.pad_left;
            }
        }
    }

    // Element offset of the chunk for row i, or false where it lies in the padding or outside the matrix.
    __device__ __forceinline__ bool locate(const GemmArgs& a, int i, u32 inner_end, u64& offset) const {
        if (!valid[i] || inner >= inner_end)
            return false;
        if constexpr (LINEAR) {
            offset = base[i] + channel;
            return true;
        } else {
            u32 tap_y = a.side == 3 ? tap / 3 : tap; // kernels are 3 x 3, 1 x 1, or 3 x 1 across frames
            int at_y = y[i] + (int)tap_y;
            int at_x = x[i] + (int)(tap - tap_y * a.side);
            if (at_y < 0 || at_x < 0 || at_y >= (int)(a.in_height << a.doubling) || at_x >= (int)(a.in_width << a.doubling))
                return false;
            offset = base[i] + ((u64)(at_y >> a.doubling) * a.in_width + (at_x >> a.doubling)) * a.channels + channel;
            return true;
        }
    }

    __device__ __forceinline__ void advance(const GemmArgs& a) {
        inner += BK;
        channel += BK;
        if constexpr (!LINEAR) {
            while (channel >= a.channels_padded) {
                channel -= a.channels_padded;
                tap++;
            }
        }
    }
};

// Fetches one tile of each operand in the background and moves on to the next.
template <int A_ROWS, int B_ROWS, int ROW_STEP, bool ALIGNED, bool LINEAR>
__device__ __forceinline__ void fetch_tiles(const GemmArgs& a, Gather<A_ROWS, LINEAR>& gather, u8* tile_a, u8* tile_b,
                                            u32 tile_column, u32 inner_end) {
    u32 my_chunk = threadIdx.x & 7;
    u32 my_row = threadIdx.x >> 3;
#pragma unroll
    for (int i = 0; i < A_ROWS; i++) {
        u64 offset = 0;
        bool valid = gather.locate(a, i, inner_end, offset);
        u8* to = tile_a + chunk_offset(my_row + i * ROW_STEP, my_chunk);
        if constexpr (ALIGNED) {
            copy_async(to, a.input + offset, valid);
        } else {
            Vec16 v;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                u32 c = gather.channel + 2 * j;
                u32 low = valid && c < a.channels ? a.input[offset + 2 * j] : 0;
                u32 high = valid && c + 1 < a.channels ? a.input[offset + 2 * j + 1] : 0;
                v.word[j] = low | high << 16;
            }
            *(Vec16*)to = v;
        }
    }
#pragma unroll
    for (int i = 0; i < B_ROWS; i++) {
        u32 column = tile_column + my_row + i * ROW_STEP;
        bool valid = column < a.columns && gather.inner < inner_end;
        const u16* from = a.weight + (valid ? (u64)column * a.inner + gather.inner : 0);
        copy_async(tile_b + chunk_offset(my_row + i * ROW_STEP, my_chunk), from, valid);
    }
    gather.advance(a);
}

// Eight f32 of a tile in shared memory.
__device__ __forceinline__ void load_staged(float (&x)[8], const float* from) {
    float4 first = *(const float4*)from;
    float4 last = *(const float4*)(from + 4);
    x[0] = first.x, x[1] = first.y, x[2] = first.z, x[3] = first.w;
    x[4] = last.x, x[5] = last.y, x[6] = last.z, x[7] = last.w;
}

// The same for gated columns: each value times the exact-erf GELU of its gate.
template <int BM, int BN, int THREADS>
__device__ __forceinline__ void store_gated(const GemmArgs& a, const float* staged, u32 tile_row, u32 tile_column) {
    for (u32 index = threadIdx.x; index < BM * BN / 16; index += THREADS) {
        u32 tile_y = index / (BN / 16);
        u32 tile_x = index % (BN / 16) * 16;
        u32 row = tile_row + tile_y;
        u32 column = tile_column + tile_x;
        if (row >= a.rows || column >= a.columns)
            continue;
        float x[8], gate[8];
        load_staged(x, staged + tile_y * (BN + 4) + tile_x);
        load_staged(gate, staged + tile_y * (BN + 4) + tile_x + 8);
        if (a.bias) {
            float y[8];
            load8(y, a.bias + column);
#pragma unroll
            for (int i = 0; i < 8; i++)
                x[i] += y[i];
            load8(y, a.bias + column + 8);
#pragma unroll
            for (int i = 0; i < 8; i++)
                gate[i] += y[i];
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
            x[i] *= gelu(gate[i]);
        store8(a.out + (u64)row * (a.columns / 2) + column / 2, x);
    }
}

// Finishes a tile that lies in shared memory as f32, rows BN + 4 apart, in runs of eight columns.
template <int BM, int BN, int THREADS, bool LINEAR>
__device__ __forceinline__ void store_tile(const GemmArgs& a, const float* staged, u32 tile_row, u32 tile_column) {
    if constexpr (LINEAR) {
        if (a.gate) {
            store_gated<BM, BN, THREADS>(a, staged, tile_row, tile_column);
            return;
        }
    }
    bool whole = (a.columns & 7) == 0;
    for (u32 index = threadIdx.x; index < BM * BN / 8; index += THREADS) {
        u32 tile_y = index / (BN / 8);
        u32 tile_x = index % (BN / 8) * 8;
        u32 row = tile_row + tile_y;
        u32 column = tile_column + tile_x;
        if (row >= a.rows || column >= a.columns)
            continue;
        float x[8];
        load_staged(x, staged + tile_y * (BN + 4) + tile_x);
        if (a.splits > 1) {
            float* to = a.partial + ((u64)blockIdx.z * a.rows + row) * a.columns + column;
            if (whole) {
                *(Vec16*)to = *(const Vec16*)(staged + tile_y * (BN + 4) + tile_x);
                *(Vec16*)(to + 4) = *(const Vec16*)(staged + tile_y * (BN + 4) + tile_x + 4);
            } else {
#pragma unroll
                for (int i = 0; i < 8; i++)
                    if (column + i < a.columns)
                        to[i] = x[i];
            }
        } else if (whole) {
            finish<8>(a, row, column, x);
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (column + i < a.columns) {
                    float one[1] = {x[i]};
                    finish<1>(a, row, column + i, one);
                }
        }
    }
}

// One tile of BM x BN outputs; each warp owns WM x WN of it. ALIGNED: channels are a multiple of 8.
template <int BM, int BN, int WM, int WN, int STAGES, bool ALIGNED, bool LINEAR>
__device__ __forceinline__ void gemm(const GemmArgs& a) {
    constexpr int THREADS = (BM / WM) * (BN / WN) * 32;
    constexpr int ROW_STEP = THREADS / 8;
    constexpr int A_ROWS = BM / ROW_STEP;
    constexpr int B_ROWS = BN / ROW_STEP;
    constexpr int STAGE_BYTES = (BM + BN) * 128;

    u32 thread = threadIdx.x;
    u32 lane = thread & 31;
    u32 warp = thread >> 5;
    u32 warp_row = warp / (BN / WN) * WM;
    u32 warp_column = warp % (BN / WN) * WN;
    u32 tiles_across = quotient_up(a.columns, BN);
    u32 tile_row = blockIdx.x / tiles_across * BM;
    u32 tile_column = blockIdx.x % tiles_across * BN;
    u32 inner_first = blockIdx.z * a.inner_per_split;
    u32 inner_end = min(a.inner, inner_first + a.inner_per_split);
    int tiles = (int)quotient_up(inner_end - inner_first, BK);

    u32 my_chunk = thread & 7;
    u32 my_row = thread >> 3;
    Gather<A_ROWS, LINEAR> gather(a, tile_row + my_row, ROW_STEP, inner_first + my_chunk * 8);

    auto fetch = [&](int stage) {
        u8* tile_a = dynamic_shared + stage * STAGE_BYTES;
        fetch_tiles<A_ROWS, B_ROWS, ROW_STEP, ALIGNED>(a, gather, tile_a, tile_a + BM * 128, tile_column, inner_end);
    };

    float sum[WM / 16][WN / 8][4];
#pragma unroll
    for (int i = 0; i < WM / 16; i++)
#pragma unroll
        for (int j = 0; j < WN / 8; j++)
#pragma unroll
            for (int k = 0; k < 4; k++)
                sum[i][j][k] = 0.0f;

#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (stage < tiles)
            fetch(stage);
        copy_commit();
    }
    for (int tile = 0; tile < tiles; tile++) {
        copy_wait<STAGES - 2>();
        sync_block();
        if (tile + STAGES - 1 < tiles)
            fetch((tile + STAGES - 1) % STAGES);
        copy_commit();
        const u8* tile_a = dynamic_shared + tile % STAGES * STAGE_BYTES;
        const u8* tile_b = tile_a + BM * 128;
#pragma unroll
        for (int step = 0; step < BK / 16; step++) {
            u32 fragment_a[WM / 16][4];
            u32 fragment_b[WN / 16][4];
#pragma unroll
            for (int i = 0; i < WM / 16; i++)
                load_matrices(fragment_a[i], tile_a + chunk_offset(warp_row + i * 16 + (lane & 15), step * 2 + (lane >> 4)));
#pragma unroll
            for (int j = 0; j < WN / 16; j++)
                load_matrices(fragment_b[j], tile_b + chunk_offset(warp_column + j * 16 + (lane & 7) + ((lane >> 4) << 3),
                                                                   step * 2 + ((lane >> 3) & 1)));
#pragma unroll
            for (int i = 0; i < WM / 16; i++)
#pragma unroll
                for (int j = 0; j < WN / 8; j++)
                    mma_16x8x16(sum[i][j], fragment_a[i], fragment_b[j / 2][j % 2 * 2], fragment_b[j / 2][j % 2 * 2 + 1]);
        }
    }
    copy_wait<0>();
    sync_block();

    // Through shared memory, so that global memory is read and written in runs of 16 bytes.
    constexpr int PITCH = BN + 4;
    static_assert(BM * PITCH * 4 <= STAGES * STAGE_BYTES, "the output tile must fit where the input tiles were");
    float* staged = (float*)dynamic_shared;
#pragma unroll
    for (int i = 0; i < WM / 16; i++)
#pragma unroll
        for (int j = 0; j < WN / 8; j++) {
            u32 row = warp_row + i * 16 + (lane >> 2);
            u32 column = warp_column + j * 8 + (lane & 3) * 2;
            *(float2*)(staged + row * PITCH + column) = make_float2(sum[i][j][0], sum[i][j][1]);
            *(float2*)(staged + (row + 8) * PITCH + column) = make_float2(sum[i][j][2], sum[i][j][3]);
        }
    sync_block();
    store_tile<BM, BN, THREADS, LINEAR>(a, staged, tile_row, tile_column);
}

KERNEL(conv_128x128, GemmArgs, 256, 2) {
    gemm<128, 128, 64, 32, 3, true, false>(a);
}
KERNEL(conv_64x64, GemmArgs, 128, 3) {
    gemm<64, 64, 32, 32, 4, true, false>(a);
}
KERNEL(conv_any, GemmArgs, 128, 3) {
    gemm<64, 64, 32, 32, 4, false, false>(a);
}
KERNEL(linear_128x128, GemmArgs, 256, 2) {
    gemm<128, 128, 64, 32, 3, true, true>(a);
}
KERNEL(linear_64x64, GemmArgs, 128, 3) {
    gemm<64, 64, 32, 32, 4, true, true>(a);
}
KERNEL(linear_any, GemmArgs, 128, 3) {
    gemm<64, 64, 32, 32, 4, false, true>(a);
}

#if defined(HEADROOM_EMULATOR) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
// The same on Hopper: two warpgroups, each 64 x BN of a tile of 128 x BN, sums in registers, operands read from shared
// memory by the tensor cores. Two blocks share a multiprocessor, so that one multiplies while the other fetches.
template <int BN, int STAGES, bool LINEAR> __device__ __forceinline__ void gemm_warpgroups(const GemmArgs& a) {
    constexpr int BM = 128;
    constexpr int THREADS = 256;
    constexpr int ROW_STEP = THREADS / 8;
    constexpr int A_ROWS = BM / ROW_STEP;
    constexpr int B_ROWS = BN / ROW_STEP;
    constexpr int STAGE_BYTES = (BM + BN) * 128;
    constexpr int PITCH = BN + 4;
    static_assert(STAGE_BYTES % 1024 == 0, "tiles start at whole swizzle atoms");
    static_assert(BM * PITCH * 4 <= STAGES * STAGE_BYTES, "the output tile must fit where the input tiles were");

    u32 lane = threadIdx.x & 31;
    u32 warp = threadIdx.x >> 5;
    u32 warpgroup = threadIdx.x >> 7;
    u32 tiles_across = quotient_up(a.columns, BN);
    u32 tile_row = blockIdx.x / tiles_across * BM;
    u32 tile_column = blockIdx.x % tiles_across * BN;
    u32 inner_first = blockIdx.z * a.inner_per_split;
    u32 inner_end = min(a.inner, inner_first + a.inner_per_split);
    int tiles = (int)quotient_up(inner_end - inner_first, BK);
    Gather<A_ROWS, LINEAR> gather(a, tile_row + (threadIdx.x >> 3), ROW_STEP, inner_first + (threadIdx.x & 7) * 8);
    auto fetch = [&](int stage) {
        u8* tile_a = dynamic_shared + stage * STAGE_BYTES;
        fetch_tiles<A_ROWS, B_ROWS, ROW_STEP, true>(a, gather, tile_a, tile_a + BM * 128, tile_column, inner_end);
    };

    float sum[BN / 2];
#pragma unroll
    for (int i = 0; i < BN / 2; i++)
        sum[i] = 0.0f;
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (stage < tiles)
            fetch(stage);
        copy_commit();
    }
    for (int tile = 0; tile < tiles; tile++) {
        copy_wait<STAGES - 2>();
        fence_async();
        warpgroup_wait(); // the products of the tile before: its stage is free after the barrier
        sync_block();
        const u8* tile_a = dynamic_shared + tile % STAGES * STAGE_BYTES;
        u64 a_at = tile_descriptor(tile_a + warpgroup * 64 * 128);
        u64 b_at = tile_descriptor(tile_a + BM * 128);
#pragma unroll
        for (int i = 0; i < BN / 2; i++)
            hold(sum[i]);
        warpgroup_fence();
#pragma unroll
        for (int step = 0; step < BK / 16; step++)
            warpgroup_mma(sum, a_at + 2 * step, b_at + 2 * step);
        warpgroup_commit();
        if (tile + STAGES - 1 < tiles)
            fetch((tile + STAGES - 1) % STAGES);
        copy_commit();
    }
    warpgroup_wait();
#pragma unroll
    for (int i = 0; i < BN / 2; i++)
        hold(sum[i]);
    copy_wait<0>();
    sync_block();
    float* staged = (float*)dynamic_shared;
    u32 row = warp * 16 + (lane >> 2);
#pragma unroll
    for (int j = 0; j < BN / 8; j++) {
        u32 column = j * 8 + (lane & 3) * 2;
        *(float2*)(staged + row * PITCH + column) = make_float2(sum[4 * j], sum[4 * j + 1]);
        *(float2*)(staged + (row + 8) * PITCH + column) = make_float2(sum[4 * j + 2], sum[4 * j + 3]);
    }
    sync_block();
    store_tile<BM, BN, THREADS, LINEAR>(a, staged, tile_row, tile_column);
}

KERNEL(hopper_conv_128x160, GemmArgs, 256, 2) {
    gemm_warpgroups<160, 3, false>(a);
}
KERNEL(hopper_conv_128x128, GemmArgs, 256, 2) {
    gemm_warpgroups<128, 3, false>(a);
}
KERNEL(hopper_linear_128x160, GemmArgs, 256, 2) {
    gemm_warpgroups<160, 3, true>(a);
}
KERNEL(hopper_linear_128x128, GemmArgs, 256, 2) {
    gemm_warpgroups<128, 3, true>(a);
}
#endif

// Adds the splits' partial sums in order. Grid: ceil(rows * columns / V / 256) blocks.
template <int V> __device__ __forceinline__ void add_splits(const GemmArgs& a) {
    u64 index = (u64)blockIdx.x * 256 + threadIdx.x;
    u64 total = (u64)a.rows * a.columns;
    if (index * V >= total)
        return;
    float x[V];
#pragma unroll
    for (int i = 0; i < V; i++)
        x[i] = 0.0f;
    for (u32 split = 0; split < a.splits; split++)
#pragma unroll
        for (int i = 0; i < V; i++)
            x[i] += a.partial[split * total + index * V + i];
    u32 row = (u32)(index * V / a.columns);
    finish<V>(a, row, (u32)(index * V - (u64)row * a.columns), x);
}

KERNEL(split_finish_8, GemmArgs, 256, 1) {
    add_splits<8>(a);
}
KERNEL(split_finish_1, GemmArgs, 256, 1) {
    add_splits<1>(a);
}

// Linear layers with at most 8 rows: memory-bound, one warp per column. Channels are a multiple of 8.
// Grid: ceil(columns / 8) blocks.
KERNEL(linear_few_rows, GemmArgs, 256, 1) {
    u32 lane = threadIdx.x & 31;
    u32 column = blockIdx.x * 8 + (threadIdx.x >> 5);
    if (column >= a.columns)
        return;
    float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (u32 inner = lane * 8; inner < a.inner; inner += 256) {
        float w[8];
        load8(w, a.weight + (u64)column * a.inner + inner);
#pragma unroll
        for (u32 row = 0; row < 8; row++)
            if (row < a.rows) {
                float x[8];
                load8(x, a.input + (u64)row * a.channels + inner);
#pragma unroll
                for (int i = 0; i < 8; i++)
                    sum[row] += w[i] * x[i];
            }
    }
#pragma unroll
    for (u32 row = 0; row < 8; row++) {
        float one[1] = {warp_sum(sum[row])};
        if (lane == 0 && row < a.rows)
            finish<1>(a, row, column, one);
    }
}
