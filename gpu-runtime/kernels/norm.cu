// Group and layer normalisation, channels last. After statistics.cu.

struct GroupNormArgs {
    const u16* input;
    const u16* gamma;
    const u16* beta;
    u16* out;
    float2* partial; // [instances][chunks][groups]: sum and sum of squares about the first element
    GroupShape shape;
};

// Distance from the group's first element, and its square.
template <int V> struct Distances {
    const u16* instance;
    u32 per_group;
    float about[V];

    __device__ __forceinline__ void begin(u32 channel) {
#pragma unroll
        for (int i = 0; i < V; i++)
            about[i] = from_bf16(instance[(channel + i) / per_group * per_group]);
    }
    __device__ __forceinline__ void add(float (&sum)[V], float (&square)[V], u64 at) const {
        float x[V];
        load_vector<V>(x, instance + at);
#pragma unroll
        for (int i = 0; i < V; i++) {
            float d = x[i] - about[i];
            sum[i] += d;
            square[i] += d * d;
        }
    }
};

template <int V> __device__ __forceinline__ void group_norm_sums(const GroupNormArgs& a) {
    Distances<V> distances;
    distances.instance = a.input + (u64)blockIdx.y * a.shape.rows * a.shape.channels;
    distances.per_group = a.shape.channels / a.shape.groups;
    group_sums<V>(a.shape, a.partial, distances);
}

// Normalises one chunk of rows. Same grid.
template <int V> __device__ __forceinline__ void group_norm_apply(const GroupNormArgs& a) {
    __shared__ float mean[GROUPS_MAX];
    __shared__ float scale[GROUPS_MAX];
    u32 per_group = a.shape.channels / a.shape.groups;
    u64 first = (u64)blockIdx.y * a.shape.rows * a.shape.channels;
    const u16* instance = a.input + first;
    u16* out = a.out + first;
    group_statistics(a.shape, a.partial, instance, mean, scale);
    float multiply[V], add[V];
    auto begin = [&](u32 channel) {
        float gamma[V], beta[V];
        load_vector<V>(gamma, a.gamma + channel);
        load_vector<V>(beta, a.beta + channel);
#pragma unroll
        for (int i = 0; i < V; i++) {
            u32 group = (channel + i) / per_group;
            multiply[i] = scale[group] * gamma[i];
            add[i] = beta[i] - mean[group] * multiply[i];
        }
    };
    for_rows<V>(a.shape, begin, [&](u64 at) {
        float x[V];
        load_vector<V>(x, instance + at);
#pragma unroll
        for (int i = 0; i < V; i++) {
            x[i] = x[i] * multiply[i] + add[i];
            if (a.shape.silu)
                x[i] = x[i] / (1.0f + exp2_fast(-1.44269504f * x[i]));
        }
        store_vector<V>(out + at, x);
    });
}
BY_WIDTH(group_norm_sums, GroupNormArgs, 2)
BY_WIDTH(group_norm_apply, GroupNormArgs, 2)

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

// One warp per row, which it reads three times. Grid: ceil(rows / 8) blocks.
template <int V> __device__ __forceinline__ void layer_norm(const LayerNormArgs& a) {
    u32 row = blockIdx.x * 8 + (threadIdx.x >> 5);
    u32 lane = threadIdx.x & 31;
    if (row >= a.rows)
        return;
    const u16* from = a.input + (u64)row * a.channels;
    u16* to = a.out + (u64)row * a.channels;
    float mean, scale;
    row_statistics<V>(from, a.channels, a.eps, mean, scale);
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
BY_WIDTH(layer_norm, LayerNormArgs, 1)
