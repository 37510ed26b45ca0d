// What normalisations and their gradients share: sums and statistics of groups and of rows, all in f32. Placed before norm.cu and
// norm_gradient.cu; no kernel is here.
//
// Group statistics are taken about the group's first element, so that their sums of squares do not cancel.

struct GroupShape {
    u32 rows; // of one instance: frames together x height x width
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

// Sums of two numbers of every element of one chunk of rows, group by group. Grid: (chunks, instances). Threads form lanes
// over channel vectors and, where a row has fewer vectors than there are threads, over rows. `numbers` adds the two numbers of
// V elements: `begin` with their first channel, then `add` for every row with their offset in the instance.
template <int V, class Numbers>
__device__ __forceinline__ void group_sums(const GroupShape& a, float2* partial, Numbers numbers) {
    __shared__ float window_first[GROUP_THREADS * V];
    __shared__ float window_second[GROUP_THREADS * V];
    __shared__ float group_first[GROUPS_MAX];
    __shared__ float group_second[GROUPS_MAX];
    u32 vectors = a.channels / V;
    u32 per_group = a.channels / a.groups;
    u32 across = min(vectors, (u32)GROUP_THREADS);
    u32 down = GROUP_THREADS / across;
    u32 my_vector = threadIdx.x % across;
    u32 my_row = threadIdx.x / across;
    u32 row_first = blockIdx.x * a.chunk_rows;
    u32 row_end = min(a.rows, row_first + a.chunk_rows);
    for (u32 group = threadIdx.x; group < a.groups; group += GROUP_THREADS) {
        group_first[group] = 0.0f;
        group_second[group] = 0.0f;
    }
    sync_block();
    for (u32 window = 0; window < vectors; window += across) {
        u32 vector = window + my_vector;
        float first[V], second[V];
#pragma unroll
        for (int i = 0; i < V; i++)
            first[i] = second[i] = 0.0f;
        if (vector < vectors && my_row < down) {
            numbers.begin(vector * V);
            for (u32 row = row_first + my_row; row < row_end; row += down)
                numbers.add(first, second, (u64)row * a.channels + vector * V);
        }
#pragma unroll
        for (int i = 0; i < V; i++) {
            window_first[threadIdx.x * V + i] = first[i];
            window_second[threadIdx.x * V + i] = second[i];
        }
        sync_block();
        u32 channel_first = window * V;
        u32 channel_end = min(a.channels, (window + across) * V);
        for (u32 group = threadIdx.x; group < a.groups; group += GROUP_THREADS) {
            u32 from = max(channel_first, group * per_group);
            u32 to = min(channel_end, (group + 1) * per_group);
            float s = group_first[group], q = group_second[group];
            for (u32 channel = from; channel < to; channel++)
                for (u32 r = 0; r < down; r++) {
                    u32 at = r * across * V + (channel - channel_first);
                    s += window_first[at];
                    q += window_second[at];
                }
            group_first[group] = s;
            group_second[group] = q;
        }
        sync_block();
    }
    for (u32 group = threadIdx.x; group < a.groups; group += GROUP_THREADS)
        partial[((u64)blockIdx.y * a.chunks + blockIdx.x) * a.groups + group] =
            make_float2(group_first[group], group_second[group]);
}

// Two sums of one group, over all chunks of an instance. A warp adds them up.
__device__ __forceinline__ float2 group_total(const GroupShape& a, const float2* partial, u32 group) {
    float first = 0.0f, second = 0.0f;
    for (u32 chunk = threadIdx.x & 31; chunk < a.chunks; chunk += 32) {
        float2 part = partial[((u64)blockIdx.y * a.chunks + chunk) * a.groups + group];
        first += part.x;
        second += part.y;
    }
    return make_float2(warp_sum(first), warp_sum(second));
}

// Means and inverse deviations of an instance's groups, from the sums of their distances.
__device__ __forceinline__ void group_statistics(const GroupShape& a, const float2* partial, const u16* instance, float* mean, float* scale) {
    u32 per_group = a.channels / a.groups;
    for (u32 group = threadIdx.x >> 5; group < a.groups; group += GROUP_THREADS / 32) {
        float2 total = group_total(a, partial, group);
        if ((threadIdx.x & 31) == 0) {
            float n = (float)a.rows * (float)per_group;
            float offset = total.x / n;
            mean[group] = from_bf16(instance[group * per_group]) + offset;
            scale[group] = rsqrtf(fmaxf(total.y / n - offset * offset, 0.0f) + a.eps);
        }
    }
    sync_block();
}

// Walks one chunk of rows, in the order of group_sums: `begin` with the first of V channels, then `apply` with the offset in the
// instance of those of every row.
template <int V, class Begin, class Apply> __device__ __forceinline__ void for_rows(const GroupShape& a, Begin begin, Apply apply) {
    u32 vectors = a.channels / V;
    u32 across = min(vectors, (u32)GROUP_THREADS);
    u32 down = GROUP_THREADS / across;
    u32 my_row = threadIdx.x / across;
    u32 row_first = blockIdx.x * a.chunk_rows;
    u32 row_end = min(a.rows, row_first + a.chunk_rows);
    if (my_row >= down)
        return;
    for (u32 vector = threadIdx.x % across; vector < vectors; vector += across) {
        begin(vector * V);
        for (u32 row = row_first + my_row; row < row_end; row += down)
            apply((u64)row * a.channels + vector * V);
    }
}

// Mean and inverse deviation of one row, which a warp reads twice, the second time from the nearest cache.
template <int V>
__device__ __forceinline__ void row_statistics(const u16* row, u32 channels, float eps, float& mean, float& scale) {
    u32 lane = threadIdx.x & 31;
    float sum = 0.0f;
    for (u32 c = lane * V; c < channels; c += 32 * V) {
        float x[V];
        load_vector<V>(x, row + c);
#pragma unroll
        for (int i = 0; i < V; i++)
            sum += x[i];
    }
    mean = warp_sum(sum) / (float)channels;
    float square = 0.0f;
    for (u32 c = lane * V; c < channels; c += 32 * V) {
        float x[V];
        load_vector<V>(x, row + c);
#pragma unroll
        for (int i = 0; i < V; i++)
            square += (x[i] - mean) * (x[i] - mean);
    }
    scale = rsqrtf(warp_sum(square) / (float)channels + eps);
}
