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

// Sums of two numbers of every element of one chunk of rows, group by group. Grid: (chunks, instances). Threads form lanes
// over channel vectors and, where a row has fewer vectors than there are threads, over rows. `numbers` adds the two numbers of
// V elements: `begin` with their first channel, then `add` for every row with their offset in the instance.
template <int V, class Args, class Numbers>
__device__ __forceinline__ void group_sums(const Args& a, float2* partial, Numbers numbers) {
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
    distances.instance = a.input + (u64)blockIdx.y * a.rows * a.channels;
    distances.per_group = a.channels / a.groups;
    group_sums<V>(a, a.partial, distances);
}

// Means and inverse deviations of an instance's groups, from the sums of all its chunks. A warp adds up a group.
template <class Args> __device__ __forceinline__ void group_statistics(const Args& a, const u16* instance, float* mean, float* scale) {
    u32 per_group = a.channels / a.groups;
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
}

// Normalises one chunk of rows. Same grid.
template <int V> __device__ __forceinline__ void group_norm_apply(const GroupNormArgs& a) {
    __shared__ float mean[GROUPS_MAX];
    __shared__ float scale[GROUPS_MAX];
    u32 per_group = a.channels / a.groups;
    const u16* instance = a.input + (u64)blockIdx.y * a.rows * a.channels;
    u16* out = a.out + (u64)blockIdx.y * a.rows * a.channels;
    group_statistics(a, instance, mean, scale);
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

struct GroupNormGradientArgs {
    const u16* of_out;
    const u16* input;
    const u16* residual; // added, or null
    const u16* gamma;
    const u16* beta;
    u16* out;
    float2* partial; // of the input, as in GroupNormArgs
    float2* sums;    // [instances][chunks][groups]: of g and of g times the normalised input
    u32 rows;
    u32 channels;
    u32 groups;
    u32 chunks;
    u32 chunk_rows;
    u32 silu;
    float eps;
    u32 reserved;
};

// The gradient of the normalised input, and that input, of V elements.
template <int V> struct Upstream {
    const u16* of_out;
    const u16* input;
    const float* mean; // of groups
    const float* scale;
    const u16* gamma_all;
    const u16* beta_all;
    u32 per_group;
    u32 silu;
    float gamma[V], beta[V], my_mean[V], my_scale[V];

    __device__ __forceinline__ Upstream(const GroupNormGradientArgs& a, const float* mean_, const float* scale_)
        : mean(mean_), scale(scale_) {
        u64 first = (u64)blockIdx.y * a.rows * a.channels;
        of_out = a.of_out + first;
        input = a.input + first;
        gamma_all = a.gamma;
        beta_all = a.beta;
        per_group = a.channels / a.groups;
        silu = a.silu;
    }
    __device__ __forceinline__ void begin(u32 channel) {
        load_vector<V>(gamma, gamma_all + channel);
        load_vector<V>(beta, beta_all + channel);
#pragma unroll
        for (int i = 0; i < V; i++) {
            my_mean[i] = mean[(channel + i) / per_group];
            my_scale[i] = scale[(channel + i) / per_group];
        }
    }
    __device__ __forceinline__ void load(float (&g)[V], float (&normed)[V], u64 at) const {
        load_vector<V>(normed, input + at);
        load_vector<V>(g, of_out + at);
#pragma unroll
        for (int i = 0; i < V; i++) {
            normed[i] = (normed[i] - my_mean[i]) * my_scale[i];
            if (silu) {
                float x = normed[i] * gamma[i] + beta[i];
                float s = 1.0f / (1.0f + exp2_fast(-1.44269504f * x));
                g[i] *= s * (1.0f + x * (1.0f - s));
            }
            g[i] *= gamma[i];
        }
    }
    __device__ __forceinline__ void add(float (&sum)[V], float (&product)[V], u64 at) const {
        float g[V], normed[V];
        load(g, normed, at);
#pragma unroll
        for (int i = 0; i < V; i++) {
            sum[i] += g[i];
            product[i] += g[i] * normed[i];
        }
    }
};

template <int V> __device__ __forceinline__ void group_norm_gradient_sums(const GroupNormGradientArgs& a) {
    __shared__ float mean[GROUPS_MAX];
    __shared__ float scale[GROUPS_MAX];
    group_statistics(a, a.input + (u64)blockIdx.y * a.rows * a.channels, mean, scale);
    group_sums<V>(a, a.sums, Upstream<V>(a, mean, scale));
}

// (g - mean(g) - x mean(g x)) / deviation + residual, x normalised, of one chunk of rows. Same grid.
template <int V> __device__ __forceinline__ void group_norm_gradient_apply(const GroupNormGradientArgs& a) {
    __shared__ float mean[GROUPS_MAX];
    __shared__ float scale[GROUPS_MAX];
    __shared__ float mean_g[GROUPS_MAX];
    __shared__ float mean_gx[GROUPS_MAX];
    u32 per_group = a.channels / a.groups;
    u64 first = (u64)blockIdx.y * a.rows * a.channels;
    group_statistics(a, a.input + first, mean, scale);
    u32 lane = threadIdx.x & 31;
    for (u32 group = threadIdx.x >> 5; group < a.groups; group += GROUP_THREADS / 32) {
        float sum = 0.0f, product = 0.0f;
        for (u32 chunk = lane; chunk < a.chunks; chunk += 32) {
            float2 part = a.sums[((u64)blockIdx.y * a.chunks + chunk) * a.groups + group];
            sum += part.x;
            product += part.y;
        }
        sum = warp_sum(sum);
        product = warp_sum(product);
        if (lane == 0) {
            float n = (float)a.rows * (float)per_group;
            mean_g[group] = sum / n;
            mean_gx[group] = product / n;
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
    Upstream<V> upstream(a, mean, scale);
    for (u32 vector = threadIdx.x % across; vector < vectors; vector += across) {
        upstream.begin(vector * V);
        for (u32 row = row_first + my_row; row < row_end; row += down) {
            u64 at = (u64)row * a.channels + vector * V;
            float g[V], normed[V], more[V];
            upstream.load(g, normed, at);
#pragma unroll
            for (int i = 0; i < V; i++) {
                u32 group = (vector * V + i) / per_group;
                g[i] = (g[i] - mean_g[group] - normed[i] * mean_gx[group]) * upstream.my_scale[i];
            }
            if (a.residual) {
                load_vector<V>(more, a.residual + first + at);
#pragma unroll
                for (int i = 0; i < V; i++)
                    g[i] += more[i];
            }
            store_vector<V>(a.out + first + at, g);
        }
    }
}

KERNEL(group_norm_gradient_sums_8, GroupNormGradientArgs, 256, 1) {
    group_norm_gradient_sums<8>(a);
}
KERNEL(group_norm_gradient_sums_1, GroupNormGradientArgs, 256, 1) {
    group_norm_gradient_sums<1>(a);
}
KERNEL(group_norm_gradient_apply_8, GroupNormGradientArgs, 256, 1) {
    group_norm_gradient_apply<8>(a);
}
KERNEL(group_norm_gradient_apply_1, GroupNormGradientArgs, 256, 1) {
    group_norm_gradient_apply<1>(a);
}

struct LayerNormGradientArgs {
    const u16* of_out;
    const u16* input;
    const u16* residual; // added, or null
    const u16* gamma;
    u16* out;
    u32 rows;
    u32 channels;
    float eps;
    u32 reserved;
};

// One warp per row, as in layer_norm.
template <int V> __device__ __forceinline__ void layer_norm_gradient(const LayerNormGradientArgs& a) {
    u32 row = blockIdx.x * 8 + (threadIdx.x >> 5);
    u32 lane = threadIdx.x & 31;
    if (row >= a.rows)
        return;
    u64 first = (u64)row * a.channels;
    float sum = 0.0f;
    for (u32 c = lane * V; c < a.channels; c += 32 * V) {
        float x[V];
        load_vector<V>(x, a.input + first + c);
#pragma unroll
        for (int i = 0; i < V; i++)
            sum += x[i];
    }
    float mean = warp_sum(sum) / (float)a.channels;
    float square = 0.0f;
    for (u32 c = lane * V; c < a.channels; c += 32 * V) {
        float x[V];
        load_vector<V>(x, a.input + first + c);
#pragma unroll
        for (int i = 0; i < V; i++)
            square += (x[i] - mean) * (x[i] - mean);
    }
    float scale = rsqrtf(warp_sum(square) / (float)a.channels + a.eps);
    float sum_g = 0.0f, sum_gx = 0.0f;
    for (u32 c = lane * V; c < a.channels; c += 32 * V) {
        float x[V], g[V], gamma[V];
        load_vector<V>(x, a.input + first + c);
        load_vector<V>(g, a.of_out + first + c);
        load_vector<V>(gamma, a.gamma + c);
#pragma unroll
        for (int i = 0; i < V; i++) {
            sum_g += g[i] * gamma[i];
            sum_gx += g[i] * gamma[i] * (x[i] - mean) * scale;
        }
    }
    float mean_g = warp_sum(sum_g) / (float)a.channels;
    float mean_gx = warp_sum(sum_gx) / (float)a.channels;
    for (u32 c = lane * V; c < a.channels; c += 32 * V) {
        float x[V], g[V], gamma[V];
        load_vector<V>(x, a.input + first + c);
        load_vector<V>(g, a.of_out + first + c);
        load_vector<V>(gamma, a.gamma + c);
#pragma unroll
        for (int i = 0; i < V; i++)
            g[i] = (g[i] * gamma[i] - mean_g - (x[i] - mean) * scale * mean_gx) * scale;
        if (a.residual) {
            load_vector<V>(x, a.residual + first + c);
#pragma unroll
            for (int i = 0; i < V; i++)
                g[i] += x[i];
        }
        store_vector<V>(a.out + first + c, g);
    }
}

KERNEL(layer_norm_gradient_8, LayerNormGradientArgs, 256, 1) {
    layer_norm_gradient<8>(a);
}
KERNEL(layer_norm_gradient_1, LayerNormGradientArgs, 256, 1) {
    layer_norm_gradient<1>(a);
}
