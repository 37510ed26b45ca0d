// Gradients of attention without a matrix of weights in memory (FlashAttention-2, Dao 2023), on tensor cores (mma.sync).
//
// attention_rows: of every query row the logarithm of the sum of its exponentials, and result times gradient. attention_query:
// a block has some queries and goes through all keys. attention_key_value: a block has some keys and goes through all queries
// that see them, of all frames for the cross pattern; few keys are split over queries, and split_sums adds the parts.
// Rows have any stride, as in attention.cu. `*_1` are for few queries (frames): one warp a problem. Tiles are not fetched ahead:
// other blocks of the multiprocessor compute meanwhile. Shares and gradients of scores are rounded to bf16 for the products.
// Grid: (batches x heads, tiles of 16 x WARPS rows, splits x slices of columns). Tolerance against f32: 2^-6 of the norm.

struct AttentionGradientArgs {
    const u16* query;
    const u16* key;
    const u16* value;
    const u16* result; // of the forward pass; attention_rows alone reads it
    const u16* of_out; // its gradient; the same strides
    float* rows;       // [row][head]: logarithm, product
    u16* out;
    float* partial;  // [splits][elements] where keys are split
    u64 elements;    // of out
    u64 query_outer; // elements from one outer batch to the next; 0 where all share one
    u64 key_outer;
    u64 value_outer;
    u64 result_outer;
    u64 rows_outer;
    u64 out_outer;
    u32 query_token; // elements from one token to the next
    u32 key_token;
    u32 value_token;
    u32 result_token;
    u32 rows_token;
    u32 out_token;
    u32 query_position; // elements from one inner batch to the next
    u32 key_position;
    u32 value_position;
    u32 result_position;
    u32 rows_position;
    u32 out_position;
    u32 positions; // inner batches of one outer batch
    u32 heads;
    u32 head_width;
    u32 queries;
    u32 keys;
    u32 causal;
    u32 frames;        // outer batches of queries that see the same keys (attention_key_value)
    u32 value_first;   // channel of out at which the gradients of values begin
    u32 splits;        // of the tiles of queries
    u32 split_tiles;   // tiles of each
    float scale;       // log2(e) / sqrt(head width)
    float factor;      // 1 / sqrt(head width)
};

constexpr float LOG2_E = 1.44269504f;
constexpr float LN_2 = 0.69314718f;

// sum = rows * tile^T: 16 rows at `row` (this lane's, for load_matrices) times N rows of the tile, both PITCH apart.
template <int D, int N, int PITCH>
__device__ __forceinline__ void products(float (&sum)[N / 8][4], const u16* row, const u16* tile, u32 lane) {
    clear<N>(sum);
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
        u32 a[4];
        load_matrices(a, row + step * 16);
#pragma unroll
        for (int j = 0; j < N / 16; j++) {
            u32 b[4];
            load_matrices(b, tile + (j * 16 + (lane & 7) + ((lane >> 4) << 3)) * PITCH + step * 16 + ((lane >> 3) & 1) * 8);
            mma_16x8x16(sum[2 * j], a, b[0], b[1]);
            mma_16x8x16(sum[2 * j + 1], a, b[2], b[3]);
        }
    }
}

// Head, outer batch and position of this block.
struct Batch {
    u32 head;
    u32 outer;
    u32 position;

    // Where this block's rows begin in a tensor with these strides; with outer stride 0, those of the first outer batch.
    __device__ __forceinline__ u64 offset(u64 outer_stride, u32 position_stride, u32 per_head) const {
        return outer * outer_stride + (u64)position * position_stride + head * per_head;
    }

    __device__ __forceinline__ Batch(const AttentionGradientArgs& a) {
        head = blockIdx.x % a.heads;
        u32 batch = blockIdx.x / a.heads;
        outer = batch / a.positions;
        position = batch - outer * a.positions;
    }
};

template <int D, int KT, int WARPS, bool ALIGNED> __device__ __forceinline__ void attention_rows(const AttentionGradientArgs& a) {
    constexpr int THREADS = WARPS * 32, QUERIES = WARPS * 16, PITCH = D + 8;
    u16* shared_query = (u16*)dynamic_shared;
    u16* shared_key = shared_query + QUERIES * PITCH;
    Batch at(a);
    u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    u32 query_first = blockIdx.y * QUERIES;
    const u16* query = a.query + at.offset(a.query_outer, a.query_position, a.head_width);
    const u16* key = a.key + at.offset(a.key_outer, a.key_position, a.head_width);
    u64 first = at.offset(a.result_outer, a.result_position, a.head_width);
    float* rows = a.rows + at.offset(a.rows_outer, a.rows_position, 2);

    fetch_rows<QUERIES, D, THREADS, ALIGNED>(shared_query, query, a.query_token, query_first, a.queries, 0, a.head_width);
    const float NONE = -1.0e30f;
    float most[2] = {NONE, NONE}, total[2] = {0.0f, 0.0f}; // of rows lane / 4 and lane / 4 + 8, in units of log2
    u32 keys = a.causal ? min(a.keys, query_first + QUERIES) : a.keys;
    for (u32 key_first = 0; key_first < keys; key_first += KT) {
        sync_block();
        fetch_rows<KT, D, THREADS, ALIGNED>(shared_key, key, a.key_token, key_first, keys, 0, a.head_width);
        copy_commit();
        copy_wait<0>();
        sync_block();
        float score[KT / 8][4];
        products<D, KT, PITCH>(score, shared_query + (warp * 16 + (lane & 15)) * PITCH + (lane >> 4) * 8, shared_key, lane);
        float most_new[2] = {most[0], most[1]};
#pragma unroll
        for (int j = 0; j < KT / 8; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                u32 seen = key_first + j * 8 + (lane & 3) * 2 + (k & 1);
                u32 row = query_first + warp * 16 + (lane >> 2) + (k >> 1) * 8;
                bool visible = seen < keys && !(a.causal && seen > row);
                score[j][k] = visible ? score[j][k] * a.scale : NONE;
                most_new[k >> 1] = fmaxf(most_new[k >> 1], score[j][k]);
            }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            most_new[h] = fmaxf(most_new[h], shuffle_xor(most_new[h], 1));
            most_new[h] = fmaxf(most_new[h], shuffle_xor(most_new[h], 2));
            total[h] *= exp2_fast(most[h] - most_new[h]);
            most[h] = most_new[h];
        }
#pragma unroll
        for (int j = 0; j < KT / 8; j++)
#pragma unroll
            for (int k = 0; k < 4; k++)
                total[k >> 1] += exp2_fast(score[j][k] - most[k >> 1]);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        u32 row = query_first + warp * 16 + (lane >> 2) + h * 8;
        bool mine = row < a.queries;
        u64 from = first + (u64)(mine ? row : 0) * a.result_token;
        float product = 0.0f;
        for (u32 column = lane & 3; column < a.head_width; column += 4)
            product += from_bf16(a.result[from + column]) * from_bf16(a.of_out[from + column]);
        total[h] += shuffle_xor(total[h], 1);
        total[h] += shuffle_xor(total[h], 2);
        product += shuffle_xor(product, 1);
        product += shuffle_xor(product, 2);
        if (mine && (lane & 3) == 0)
            *(float2*)(rows + (u64)row * a.rows_token) = make_float2((most[h] + log2f(total[h])) * LN_2, product);
    }
}

// Stores two neighbouring columns of one row, as bf16 or as a part of a sum.
template <bool ALIGNED>
__device__ __forceinline__ void store_pair(const AttentionGradientArgs& a, u32 split, u64 offset, u32 column, float low, float high) {
    if (a.splits > 1) {
        float* to = a.partial + split * a.elements + offset;
        if (column < a.head_width)
            to[0] = low;
        if (column + 1 < a.head_width)
            to[1] = high;
    } else if (ALIGNED) {
        if (column < a.head_width)
            *(u32*)(a.out + offset) = pack_bf16(low, high);
    } else {
        if (column < a.head_width)
            a.out[offset] = to_bf16(low);
        if (column + 1 < a.head_width)
            a.out[offset + 1] = to_bf16(high);
    }
}

// Stores what a warp has of a 16 x C tile, times a factor: rows from `row_first` on, columns from `column_first` on.
template <int C, bool ALIGNED>
__device__ __forceinline__ void store_tile(const AttentionGradientArgs& a, u32 split, u64 out, const float (&sum)[C / 8][4], u32 row_first,
                                           u32 rows, u32 column_first, float factor) {
    u32 lane = threadIdx.x & 31;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        u32 row = row_first + (lane >> 2) + h * 8;
        if (row >= rows)
            continue;
#pragma unroll
        for (int j = 0; j < C / 8; j++) {
            u32 column = column_first + j * 8 + (lane & 3) * 2;
            store_pair<ALIGNED>(a, split, out + (u64)row * a.out_token + column, column, sum[j][2 * h] * factor,
                                sum[j][2 * h + 1] * factor);
        }
    }
}

// C: columns of the gradient that one block computes.
template <int D, int C, int KT, int WARPS, bool ALIGNED> __device__ __forceinline__ void attention_query(const AttentionGradientArgs& a) {
    constexpr int THREADS = WARPS * 32, QUERIES = WARPS * 16, PITCH = D + 8;
    u16* shared_query = (u16*)dynamic_shared;
    u16* shared_of_out = shared_query + QUERIES * PITCH;
    u16* shared_key = shared_of_out + QUERIES * PITCH;
    u16* shared_value = shared_key + KT * PITCH;
    Batch at(a);
    u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    u32 query_first = blockIdx.y * QUERIES;
    u32 column_first = blockIdx.z * C;
    const u16* query = a.query + at.offset(a.query_outer, a.query_position, a.head_width);
    const u16* key = a.key + at.offset(a.key_outer, a.key_position, a.head_width);
    const u16* value = a.value + at.offset(a.value_outer, a.value_position, a.head_width);
    const u16* of_out = a.of_out + at.offset(a.result_outer, a.result_position, a.head_width);
    const float* rows = a.rows + at.offset(a.rows_outer, a.rows_position, 2);

    fetch_rows<QUERIES, D, THREADS, ALIGNED>(shared_query, query, a.query_token, query_first, a.queries, 0, a.head_width);
    fetch_rows<QUERIES, D, THREADS, ALIGNED>(shared_of_out, of_out, a.result_token, query_first, a.queries, 0, a.head_width);
    float logarithm[2], product[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        u32 row = query_first + warp * 16 + (lane >> 2) + h * 8;
        float2 of_row = row < a.queries ? *(const float2*)(rows + (u64)row * a.rows_token) : make_float2(0.0f, 0.0f);
        logarithm[h] = of_row.x * LOG2_E;
        product[h] = of_row.y;
    }
    float sum[C / 8][4];
    clear<C>(sum);
    u32 lane_row = (warp * 16 + (lane & 15)) * PITCH + (lane >> 4) * 8;
    u32 keys = a.causal ? min(a.keys, query_first + QUERIES) : a.keys;
    for (u32 key_first = 0; key_first < keys; key_first += KT) {
        sync_block();
        fetch_rows<KT, D, THREADS, ALIGNED>(shared_key, key, a.key_token, key_first, keys, 0, a.head_width);
        fetch_rows<KT, D, THREADS, ALIGNED>(shared_value, value, a.value_token, key_first, keys, 0, a.head_width);
        copy_commit();
        copy_wait<0>();
        sync_block();
        float score[KT / 8][4], of_share[KT / 8][4];
        products<D, KT, PITCH>(score, shared_query + lane_row, shared_key, lane);
        products<D, KT, PITCH>(of_share, shared_of_out + lane_row, shared_value, lane);
#pragma unroll
        for (int j = 0; j < KT / 8; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                u32 seen = key_first + j * 8 + (lane & 3) * 2 + (k & 1);
                u32 row = query_first + warp * 16 + (lane >> 2) + (k >> 1) * 8;
                bool visible = seen < keys && !(a.causal && seen > row);
                float share = visible ? exp2_fast(score[j][k] * a.scale - logarithm[k >> 1]) : 0.0f;
                score[j][k] = share * (of_share[j][k] - product[k >> 1]);
            }
        add_products<KT, C, PITCH>(sum, score, shared_key + column_first, lane);
    }
    u64 out = at.offset(a.out_outer, a.out_position, a.head_width);
    store_tile<C, ALIGNED>(a, 0, out, sum, query_first + warp * 16, a.queries, column_first, a.factor);
}

template <int D, int C, int QT, int WARPS, bool ALIGNED> __device__ __forceinline__ void attention_key_value(const AttentionGradientArgs& a) {
    constexpr int THREADS = WARPS * 32, KEYS = WARPS * 16, PITCH = D + 8;
    u16* shared_key = (u16*)dynamic_shared;
    u16* shared_value = shared_key + KEYS * PITCH;
    u16* shared_query = shared_value + KEYS * PITCH;
    u16* shared_of_out = shared_query + QT * PITCH;
    float2* shared_rows = (float2*)(shared_of_out + QT * PITCH);
    Batch at(a);
    u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    u32 key_first = blockIdx.y * KEYS;
    u32 split = blockIdx.z % a.splits;
    u32 column_first = blockIdx.z / a.splits * C;
    const u16* key = a.key + at.offset(a.key_outer, a.key_position, a.head_width);
    const u16* value = a.value + at.offset(a.value_outer, a.value_position, a.head_width);
    const u16* query = a.query + at.offset(0, a.query_position, a.head_width);
    const u16* of_out = a.of_out + at.offset(0, a.result_position, a.head_width);
    const float* rows = a.rows + at.offset(0, a.rows_position, 2);

    fetch_rows<KEYS, D, THREADS, ALIGNED>(shared_key, key, a.key_token, key_first, a.keys, 0, a.head_width);
    fetch_rows<KEYS, D, THREADS, ALIGNED>(shared_value, value, a.value_token, key_first, a.keys, 0, a.head_width);
    float of_key[C / 8][4], of_value[C / 8][4];
    clear<C>(of_key);
    clear<C>(of_value);
    u32 lane_row = (warp * 16 + (lane & 15)) * PITCH + (lane >> 4) * 8;
    u32 tiles = quotient_up(a.queries, QT);
    u32 tile_end = min(tiles * a.frames, (split + 1) * a.split_tiles);
    for (u32 tile = split * a.split_tiles; tile < tile_end; tile++) {
        u32 frame = tile / tiles;
        u64 outer = at.outer * a.frames + frame;
        u32 query_first = (tile - frame * tiles) * QT;
        if (a.causal && query_first + QT <= key_first)
            continue; // the same for all threads of the block
        sync_block();
        fetch_rows<QT, D, THREADS, ALIGNED>(shared_query, query + outer * a.query_outer, a.query_token, query_first, a.queries, 0,
                                            a.head_width);
        fetch_rows<QT, D, THREADS, ALIGNED>(shared_of_out, of_out + outer * a.result_outer, a.result_token, query_first, a.queries, 0,
                                            a.head_width);
        for (u32 row = threadIdx.x; row < QT; row += THREADS) {
            float2 of_row = make_float2(0.0f, 0.0f);
            if (query_first + row < a.queries)
                of_row = *(const float2*)(rows + outer * a.rows_outer + (u64)(query_first + row) * a.rows_token);
            shared_rows[row] = make_float2(of_row.x * LOG2_E, of_row.y);
        }
        copy_commit();
        copy_wait<0>();
        sync_block();
        // Rows are keys, columns queries.
        float share[QT / 8][4], of_score[QT / 8][4];
        products<D, QT, PITCH>(share, shared_key + lane_row, shared_query, lane);
        products<D, QT, PITCH>(of_score, shared_value + lane_row, shared_of_out, lane);
#pragma unroll
        for (int j = 0; j < QT / 8; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                u32 in_tile = j * 8 + (lane & 3) * 2 + (k & 1);
                u32 seen = key_first + warp * 16 + (lane >> 2) + (k >> 1) * 8;
                float2 of_row = shared_rows[in_tile];
                bool visible = query_first + in_tile < a.queries && !(a.causal && seen > query_first + in_tile);
                share[j][k] = visible ? exp2_fast(share[j][k] * a.scale - of_row.x) : 0.0f;
                of_score[j][k] = share[j][k] * (of_score[j][k] - of_row.y);
            }
        add_products<QT, C, PITCH>(of_value, share, shared_of_out + column_first, lane);
        add_products<QT, C, PITCH>(of_key, of_score, shared_query + column_first, lane);
    }
    u64 out = at.offset(a.out_outer, a.out_position, a.head_width);
    store_tile<C, ALIGNED>(a, split, out, of_key, key_first + warp * 16, a.keys, column_first, a.factor);
    store_tile<C, ALIGNED>(a, split, out + a.value_first, of_value, key_first + warp * 16, a.keys, column_first, 1.0f);
}

#define GRADIENTS(D, C, KT, QT, WARPS, NAME, ALIGNED)                                                                  \
    KERNEL(attention_rows_##NAME, AttentionGradientArgs, WARPS * 32, 1) {                                              \
        attention_rows<D, KT, WARPS, ALIGNED>(a);                                                                      \
    }                                                                                                                  \
    KERNEL(attention_query_##NAME, AttentionGradientArgs, WARPS * 32, 1) {                                             \
        attention_query<D, C, KT, WARPS, ALIGNED>(a);                                                                  \
    }                                                                                                                  \
    KERNEL(attention_key_value_##NAME, AttentionGradientArgs, WARPS * 32, 1) {                                         \
        attention_key_value<D, C, QT, WARPS, ALIGNED>(a);                                                              \
    }
// Four warps, or one for few rows; with rows that begin anywhere, only one: models have no such heads.
#define GRADIENTS_OF(D, C, KT)                                                                                                \
    GRADIENTS(D, C, KT, 32, 4, D, true)                                                                                \
    GRADIENTS(D, C, 16, 16, 1, D##_1, true)                                                                            \
    GRADIENTS(D, C, 16, 16, 1, D##_any, false)

GRADIENTS_OF(16, 16, 64)
GRADIENTS_OF(32, 32, 64)
GRADIENTS_OF(48, 48, 64)
GRADIENTS_OF(64, 64, 64)
GRADIENTS_OF(80, 80, 64)
GRADIENTS_OF(128, 64, 32)
GRADIENTS_OF(160, 80, 32)
