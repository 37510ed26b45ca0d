// Group and layer normalisation, channels last, statistics in f32.
//
// Group statistics are taken about the group's first element, so that their sums of squares do not cancel.

struct GroupNormArgs {
    const u16* input;
    const u16* gamma;
    const u16* beta;
    u16* out;
    float2* partial; // [instances][chunks][groups]: sum and sum of squares about the first element
    u32 rows;        // of one instance: frames together x height x width
    u32 channels;
    u32 groups;
    u32 chunks;
    u32 chunk_rows;
    u32 silu;
    float eps;
    u32 reserved;
};

constexpr int GROUP_THREADS = 256;
constexpr int GROUPS_MAX = 64;

// Sums of one chunk of rows. Grid: (chunks, instances). Threads form lanes over channel vectors and, where a row has
// fewer vectors than there are threads, over rows.
template <int V> __device__ __forceinline__ void group_norm_sums(const GroupNormArgs& a) {
    __shared__ float window_sum[GROUP_THREADS * V];
    __shared__ float window_square[GROUP_THREADS * V];
    __shared__ float first[GROUPS_MAX];
    __shared__ float group_sum[GROUPS_MAX];
    __shared__ float group_square[GROUPS_MAX];
    u32 vectors = a.channels / V;
    u32 per_group = a.channels / a.groups;
    u32 across = min(vectors, (u32)GROUP_THREADS);
    u32 down = GROUP_THREADS / across;
    u32 my_vector = threadIdx.x % across;
    u32 my_row = threadIdx.x / across;
    const u16* instance = a.input + (u64)blockIdx.y * a.rows * a.channels;
    u32 row_first = blockIdx.x * a.chunk_rows;
    u32 row_end = min(a.rows, row_first + a.chunk_rows);
    for (u32 group = threadIdx.x; group < a.groups; group += GROUP_THREADS) {
        first[group] = from_bf16(instance[group * per_group]);
        group_sum[group] = 0.0f;
        group_square[group] = 0.0f;
    }
    sync_block();
    for (u32 window = 0; window < vectors; window += across) {
        u32 vector = window + my_vector;
        float sum[V], square[V], about[V];
#pragma unroll
        for (int i = 0; i < V; i++) {
            sum[i] = square[i] = 0.0f;
            about[i] = vector < vectors ? first[(vector * V + i) / per_group] : 0.0f;
        }
        if (vector < vectors && my_row < down)
            for (u32 row = row_first + my_row; row < row_end; row += down) {
                float x[V];
                load_vector<V>(x, instance + (u64)row * a.channels + vector * V);
#pragma unroll
                for (int i = 0; i < V; i++) {
                    float d = x[i] - about[i];
                    sum[i] += d;
                    square[i] += d * d;
                }
            }
#pragma unroll
        for (int i = 0; i < V; i++) {
            window_sum[threadIdx.x * V + i] = sum[i];
            window_square[threadIdx.x * V + i] = square[i];
        }
        sync_block();
        u32 channel_first = window * V;
        u32 channel_end = min(a.channels, (window + across) * V);
        for (u32 group = threadIdx.x; group < a.groups; group += GROUP_THREADS) {
            u32 from = max(channel_first, group * per_group);
            u32 to = min(channel_end, (group + 1) * per_group);
            float s = group_sum[group], q = group_square[group];
            for (u32 channel = from; channel < to; channel++)
                for (u32 r = 0; r < down; r++) {
                    u32 at = r * across * V + (channel - channel_first);
                    s += window_sum[at];
                    q += window_square[at];
                }
            group_sum[group] = s;
            group_square[group] = q;
        }
        sync_block();
    }
    for (u32 group = threadIdx.x; group < a.groups; group += GROUP_THREADS)
        a.partial[((u64)blockIdx.y * a.chunks + blockIdx.x) * a.groups + group] =
            make_float2(group_sum[group], group_square[group]);
}

// Normalises one chunk of rows. Same grid.
template <int V> __device__ __forceinline__ void group_norm_apply(const GroupNormArgs& a) {
    __shared__ float mean[GROUPS_MAX];
    __shared__ float scale[GROUPS_MAX];
    u32 per_group = a.channels / a.groups;
    const u16* instance = a.input + (u64)blockIdx.y * a.rows * a.channels;
    u16* out = a.out + (u64)blockIdx.y * a.rows * a.channels;
    u32 lane = threadIdx.x & 31;
    for (u32 group = threadIdx.x >> 5; group < a.groups; group += GROUP_THREADS / 32) {
        float sum = 0.0f, square = 0.0f;
        for (u32 chunk = lane; chunk < a.chunks; chunk += 32) {
            float2 part = a.partial[((u64)blockIdx.y * a.chunks + chunk) * a.groups + group];
            sum += part.x;
            square += part.y;
        }
        sum = warp_sum(sum);
        square = warp_sum(square);
        if (lane == 0) {
            float n = (float)a.rows * (float)per_group;
            float offset = sum / n;
            mean[group] = from_bf16(instance[group * per_group]) + offset;
            scale[group] = rsqrtf(fmaxf(square / n - offset * offset, 0.0f) + a.eps);
        }
    }
    sync_block();
    u32 vectors = a.channels / V;
    u32 across = min(vectors, (u32)GROUP_THREADS);
    u32 down = GROUP_THREADS / across;
    u32 my_row = threadIdx.x / across;
    u32 row_first = blockIdx.x * a.chunk_rows;
    u32 row_end = min(a.rows, row_first + a.chunk_rows);
    if (my_row >= down)
        return;
    for (u32 vector = threadIdx.x % across; vector < vectors; vector += across) {
        float multiply[V], add[V], gamma[V], beta[V];
        load_vector<V>(gamma, a.gamma + vector * V);
        load_vector<V>(beta, a.beta + vector * V);
#pragma unroll
        for (int i = 0; i < V; i++) {
            u32 group = (vector * V + i) / per_group;
            multiply[i] = scale[group] * gamma[i];
            add[i] = beta[i] - mean[group] * multiply[i];
        }
        for (u32 row = row_first + my_row; row < row_end; row += down) {
            float x[V];
            u64 at = (u64)row * a.channels + vector * V;
            load_vector<V>(x, instance + at);
#pragma unroll
            for (int i = 0; i < V; i++) {
                x[i] = x[i] * multiply[i] + add[i];
                if (a.silu)
                    x[i] = x[i] / (1.0f + exp2_fast(-1.44269504f * x[i]));
            }
            store_vector<V>(out + at, x);
        }
    }
}

KERNEL(group_norm_sums_8, GroupNormArgs, 256, 2) {
    group_norm_sums<8>(a);
}
KERNEL(group_norm_sums_1, GroupNormArgs, 256, 2) {
    group_norm_sums<1>(a);
}
KERNEL(group_norm_apply_8, GroupNormArgs, 256, 2) {
    group_norm_apply<8>(a);
}
KERNEL(group_norm_apply_1, GroupNormArgs, 256, 2) {
    group_norm_apply<1>(a);
}

struct LayerNormArgs {
    const u16* input;
    const u16* gamma;
    const u16* beta;
    u16* out;
    u32 rows;
    u32 channels;
    float eps;
    u32 reserved;
};

// One warp per row; the row is read three times, twice from the nearest cache. Grid: ceil(rows / 8) blocks.
template <int V> __device__ __forceinline__ void layer_norm(const LayerNormArgs& a) {
    u32 row = blockIdx.x * 8 + (threadIdx.x >> 5);
    u32 lane = threadIdx.x & 31;
    if (row >= a.rows)
        return;
    const u16* from = a.input + (u64)row * a.channels;
    u16* to = a.out + (u64)row * a.channels;
    float sum = 0.0f;
    for (u32 c = lane * V; c < a.channels; c += 32 * V) {
        float x[V];
        load_vector<V>(x, from + c);
#pragma unroll
        for (int i = 0; i < V; i++)
            sum += x[i];
    }
    float mean = warp_sum(sum) / (float)a.channels;
    float square = 0.0f;
    for (u32 c = lane * V; c < a.channels; c += 32 * V) {
        float x[V];
        load_vector<V>(x, from + c);
#pragma unroll
        for (int i = 0; i < V; i++)
            square += (x[i] - mean) * (x[i] - mean);
    }
    float scale = rsqrtf(warp_sum(square) / (float)a.channels + a.eps);
    for (u32 c = lane * V; c < a.channels; c += 32 * V) {
        float x[V], gamma[V], beta[V];
        load_vector<V>(x, from + c);
        load_vector<V>(gamma, a.gamma + c);
        load_vector<V>(beta, a.beta + c);
#pragma unroll
        for (int i = 0; i < V; i++)
            x[i] = (x[i] - mean) * scale * gamma[i] + beta[i];
        store_vector<V>(to + c, x);
    }
}

KERNEL(layer_norm_8, LayerNormArgs, 256, 1) {
    layer_norm<8>(a);
}
KERNEL(layer_norm_1, LayerNormArgs, 256, 1) {
    layer_norm<1>(a);
}
