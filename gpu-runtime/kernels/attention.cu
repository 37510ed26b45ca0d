// Attention without a matrix of weights in memory (online softmax, Dao et al. 2022), on tensor cores (mma.sync).
//
// One kernel for spatial, cross, causal and temporal patterns: queries and keys are rows with any stride, so the
// temporal pattern reads across frames without a permutation. A team of WARPS warps (one block) takes 16 x WARPS
// queries of one head; keys and values come in tiles of KT. Head widths are padded with zeros to D.
// Grid: (batches x heads, ceil(queries / (16 x WARPS)), value slices). Tolerance against f32: 2^-7 of the tensor's norm.

struct AttentionArgs {
    const u16* query;
    const u16* key;
    const u16* value;
    u16* out;
    u64 query_outer; // elements from one outer batch to the next; 0 where all share one
    u64 key_outer;
    u64 value_outer;
    u64 out_outer;
    u32 query_token; // elements from one token to the next
    u32 key_token;
    u32 value_token;
    u32 out_token;
    u32 query_position; // elements from one inner batch (a position, for the temporal pattern) to the next
    u32 key_position;
    u32 value_position;
    u32 out_position;
    u32 positions; // inner batches of one outer batch; 1 for spatial patterns
    u32 heads;
    u32 head_width;
    u32 queries;
    u32 keys;
    u32 causal;
    float scale; // log2(e) / sqrt(head width)
    u32 reserved;
};

// D: padded head width of queries and keys; DV: columns of the values this block computes.
template <int D, int DV, int KT, int WARPS, bool ALIGNED> __device__ __forceinline__ void attention(const AttentionArgs& a) {
    constexpr int THREADS = WARPS * 32;
    constexpr int QUERIES = WARPS * 16;
    constexpr int STAGES = WARPS == 1 ? 1 : 2;
    constexpr int PITCH = D + 8; // an odd number of 16-byte units modulo 8 rows: no bank conflicts
    constexpr int PITCH_V = DV + 8;
    constexpr bool QUERIES_IN_REGISTERS = D <= 160;
    u16* shared_query = (u16*)dynamic_shared;
    u16* shared_key = shared_query + QUERIES * PITCH;
    u16* shared_value = shared_key + STAGES * KT * PITCH;

    u32 lane = threadIdx.x & 31;
    u32 warp = threadIdx.x >> 5;
    u32 head = blockIdx.x % a.heads;
    u32 batch = blockIdx.x / a.heads;
    u32 outer = batch / a.positions;
    u32 position = batch - outer * a.positions;
    u32 query_first = blockIdx.y * QUERIES;
    u32 column_first = blockIdx.z * DV;
    const u16* query = a.query + outer * a.query_outer + (u64)position * a.query_position + head * a.head_width;
    const u16* key = a.key + outer * a.key_outer + (u64)position * a.key_position + head * a.head_width;
    const u16* value = a.value + outer * a.value_outer + (u64)position * a.value_position + head * a.head_width;
    u16* out = a.out + outer * a.out_outer + (u64)position * a.out_position + head * a.head_width;

    u32 keys = a.causal ? min(a.keys, query_first + QUERIES) : a.keys;
    int tiles = (int)quotient_up(keys, KT);
    auto fetch = [&](int tile) {
        u32 stage = (u32)tile % STAGES;
        fetch_rows<KT, D, THREADS, ALIGNED>(shared_key + stage * KT * PITCH, key, a.key_token, tile * KT, keys, 0, a.head_width);
        fetch_rows<KT, DV, THREADS, ALIGNED>(shared_value + stage * KT * PITCH_V, value, a.value_token, tile * KT, keys,
                                             column_first, a.head_width);
    };
    fetch_rows<QUERIES, D, THREADS, ALIGNED>(shared_query, query, a.query_token, query_first, a.queries, 0, a.head_width);
    fetch(0);
    copy_commit();

    float sum[DV / 8][4];
    clear<DV>(sum);
    const float NONE = -1.0e30f;
    float most[2] = {NONE, NONE}; // of rows lane / 4 and lane / 4 + 8, in units of log2
    float total[2] = {0.0f, 0.0f};
    u32 fragment_query[QUERIES_IN_REGISTERS ? D / 16 : 1][4];
    const u16* query_row = shared_query + (warp * 16 + (lane & 15)) * PITCH + (lane >> 4) * 8;

    for (int tile = 0; tile < tiles; tile++) {
        if constexpr (STAGES == 2) {
            copy_wait<0>();
            sync_block();
            if (tile + 1 < tiles)
                fetch(tile + 1);
            copy_commit();
        } else {
            if (tile > 0) {
                sync_block();
                fetch(tile);
                copy_commit();
            }
            copy_wait<0>();
            sync_block();
        }
        const u16* tile_key = shared_key + tile % STAGES * KT * PITCH;
        const u16* tile_value = shared_value + tile % STAGES * KT * PITCH_V;
        if constexpr (QUERIES_IN_REGISTERS) {
            if (tile == 0) {
#pragma unroll
                for (int step = 0; step < D / 16; step++)
                    load_matrices(fragment_query[step], query_row + step * 16);
            }
        }
        float score[KT / 8][4];
        clear<KT>(score);
#pragma unroll
        for (int step = 0; step < D / 16; step++) {
            u32* fragment = fragment_query[QUERIES_IN_REGISTERS ? step : 0];
            u32 q[4];
            if constexpr (QUERIES_IN_REGISTERS) {
#pragma unroll
                for (int i = 0; i < 4; i++)
                    q[i] = fragment[i];
            } else {
                load_matrices(q, query_row + step * 16);
            }
#pragma unroll
            for (int j = 0; j < KT / 16; j++) {
                u32 k[4];
                load_matrices(k, tile_key + (j * 16 + (lane & 7) + ((lane >> 4) << 3)) * PITCH + step * 16 + ((lane >> 3) & 1) * 8);
                mma_16x8x16(score[2 * j], q, k[0], k[1]);
                mma_16x8x16(score[2 * j + 1], q, k[2], k[3]);
            }
        }
        u32 key_first = tile * KT;
        bool masked = key_first + KT > keys || a.causal;
        float most_new[2] = {most[0], most[1]};
#pragma unroll
        for (int j = 0; j < KT / 8; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                float s = score[j][k] * a.scale;
                if (masked) {
                    u32 at = key_first + j * 8 + (lane & 3) * 2 + (k & 1);
                    u32 row = query_first + warp * 16 + (lane >> 2) + (k >> 1) * 8;
                    if (at >= keys || (a.causal && at > row))
                        s = NONE;
                }
                score[j][k] = s;
                most_new[k >> 1] = fmaxf(most_new[k >> 1], s);
            }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            most_new[h] = fmaxf(most_new[h], shuffle_xor(most_new[h], 1));
            most_new[h] = fmaxf(most_new[h], shuffle_xor(most_new[h], 2));
            float shrink = exp2_fast(most[h] - most_new[h]);
            most[h] = most_new[h];
            total[h] *= shrink;
#pragma unroll
            for (int j = 0; j < DV / 8; j++) {
                sum[j][2 * h] *= shrink;
                sum[j][2 * h + 1] *= shrink;
            }
        }
#pragma unroll
        for (int j = 0; j < KT / 8; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                score[j][k] = exp2_fast(score[j][k] - most[k >> 1]);
                total[k >> 1] += score[j][k];
            }
        add_products<KT, DV, PITCH_V>(sum, score, tile_value, lane);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        total[h] += shuffle_xor(total[h], 1);
        total[h] += shuffle_xor(total[h], 2);
        u32 row = query_first + warp * 16 + (lane >> 2) + h * 8;
        if (row >= a.queries)
            continue;
        float inverse = 1.0f / total[h];
        u16* to = out + (u64)row * a.out_token;
#pragma unroll
        for (int j = 0; j < DV / 8; j++) {
            u32 column = column_first + j * 8 + (lane & 3) * 2;
            float low = sum[j][2 * h] * inverse, high = sum[j][2 * h + 1] * inverse;
            if constexpr (ALIGNED) {
                if (column < a.head_width)
                    *(u32*)(to + column) = pack_bf16(low, high);
            } else {
                if (column < a.head_width)
                    to[column] = to_bf16(low);
                if (column + 1 < a.head_width)
                    to[column + 1] = to_bf16(high);
            }
        }
    }
}

// attention_D: blocks of four warps. across_D: one warp per problem, for few queries (frames).
#define ATTENTION(D, DV, KT)                                                                                           \
    KERNEL(attention_##D, AttentionArgs, 128, 1) {                                                                     \
        attention<D, DV, KT, 4, true>(a);                                                                              \
    }                                                                                                                  \
    KERNEL(attention_##D##_any, AttentionArgs, 128, 1) {                                                               \
        attention<D, DV, KT, 4, false>(a);                                                                             \
    }
#define ACROSS(D)                                                                                                      \
    KERNEL(across_##D, AttentionArgs, 32, 1) {                                                                         \
        attention<D, D, 16, 1, true>(a);                                                                               \
    }                                                                                                                  \
    KERNEL(across_##D##_any, AttentionArgs, 32, 1) {                                                                   \
        attention<D, D, 16, 1, false>(a);                                                                              \
    }

ATTENTION(16, 16, 64)
ATTENTION(32, 32, 64)
ATTENTION(48, 48, 64)
ATTENTION(64, 64, 64)
ATTENTION(80, 80, 64)
ATTENTION(128, 128, 64)
ATTENTION(160, 160, 32)
ATTENTION(512, 128, 32)
ACROSS(16)
ACROSS(32)
ACROSS(48)
ACROSS(64)
ACROSS(80)
ACROSS(128)
ACROSS(160)
