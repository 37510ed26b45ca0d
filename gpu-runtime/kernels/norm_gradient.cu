// Gradients of the inputs of group and layer normalisation. After statistics.cu; sums of the input are those of group_norm_sums.

struct GroupNormGradientArgs {
    const u16* of_out;
    const u16* input;
    const u16* residual; // added, or null
    const u16* gamma;
    const u16* beta;
    u16* out;
    float2* partial; // of the input, as in GroupNormArgs
    float2* sums;    // [instances][chunks][groups]: of g and of g times the normalised input
    GroupShape shape;
};

// Adds what another gradient has at the same place, if there is one.
template <int V> __device__ __forceinline__ void add_residual(float (&g)[V], const u16* residual, u64 at) {
    if (!residual)
        return;
    float more[V];
    load_vector<V>(more, residual + at);
#pragma unroll
    for (int i = 0; i < V; i++)
        g[i] += more[i];
}

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
        u64 first = (u64)blockIdx.y * a.shape.rows * a.shape.channels;
        of_out = a.of_out + first;
        input = a.input + first;
        gamma_all = a.gamma;
        beta_all = a.beta;
        per_group = a.shape.channels / a.shape.groups;
        silu = a.shape.silu;
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
                float s = sigmoid(x);
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
    group_statistics(a.shape, a.partial, a.input + (u64)blockIdx.y * a.shape.rows * a.shape.channels, mean, scale);
    group_sums<V>(a.shape, a.sums, Upstream<V>(a, mean, scale));
}

// (g - mean(g) - x mean(g x)) / deviation + residual, x normalised, of one chunk of rows. Same grid.
template <int V> __device__ __forceinline__ void group_norm_gradient_apply(const GroupNormGradientArgs& a) {
    __shared__ float mean[GROUPS_MAX];
    __shared__ float scale[GROUPS_MAX];
    __shared__ float mean_g[GROUPS_MAX];
    __shared__ float mean_gx[GROUPS_MAX];
    u32 per_group = a.shape.channels / a.shape.groups;
    u64 first = (u64)blockIdx.y * a.shape.rows * a.shape.channels;
    group_statistics(a.shape, a.partial, a.input + first, mean, scale);
    for (u32 group = threadIdx.x >> 5; group < a.shape.groups; group += GROUP_THREADS / 32) {
        float2 total = group_total(a.shape, a.sums, group);
        if ((threadIdx.x & 31) == 0) {
            float n = (float)a.shape.rows * (float)per_group;
            mean_g[group] = total.x / n;
            mean_gx[group] = total.y / n;
        }
    }
    sync_block();
    Upstream<V> upstream(a, mean, scale);
    float my_mean_g[V], my_mean_gx[V];
    auto begin = [&](u32 channel) {
        upstream.begin(channel);
#pragma unroll
        for (int i = 0; i < V; i++) {
            u32 group = (channel + i) / per_group;
            my_mean_g[i] = mean_g[group];
            my_mean_gx[i] = mean_gx[group];
        }
    };
    for_rows<V>(a.shape, begin, [&](u64 at) {
        float g[V], normed[V];
        upstream.load(g, normed, at);
#pragma unroll
        for (int i = 0; i < V; i++)
            g[i] = (g[i] - my_mean_g[i] - normed[i] * my_mean_gx[i]) * upstream.my_scale[i];
        add_residual<V>(g, a.residual, first + at);
        store_vector<V>(a.out + first + at, g);
    });
}
BY_WIDTH(group_norm_gradient_sums, GroupNormGradientArgs, 1)
BY_WIDTH(group_norm_gradient_apply, GroupNormGradientArgs, 1)

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
    float mean, scale;
    row_statistics<V>(a.input + first, a.channels, a.eps, mean, scale);
    // The gradient of the normalised input, and that input.
    auto load = [&](float(&g)[V], float(&normed)[V], u32 c) {
        float gamma[V];
        load_vector<V>(normed, a.input + first + c);
        load_vector<V>(g, a.of_out + first + c);
        load_vector<V>(gamma, a.gamma + c);
#pragma unroll
        for (int i = 0; i < V; i++) {
            g[i] *= gamma[i];
            normed[i] = (normed[i] - mean) * scale;
        }
    };
    float sum_g = 0.0f, sum_gx = 0.0f;
    for (u32 c = lane * V; c < a.channels; c += 32 * V) {
        float g[V], normed[V];
        load(g, normed, c);
#pragma unroll
        for (int i = 0; i < V; i++) {
            sum_g += g[i];
            sum_gx += g[i] * normed[i];
        }
    }
    float mean_g = warp_sum(sum_g) / (float)a.channels;
    float mean_gx = warp_sum(sum_gx) / (float)a.channels;
    for (u32 c = lane * V; c < a.channels; c += 32 * V) {
        float g[V], normed[V];
        load(g, normed, c);
#pragma unroll
        for (int i = 0; i < V; i++)
            g[i] = (g[i] - mean_g - normed[i] * mean_gx) * scale;
        add_residual<V>(g, a.residual, first + c);
        store_vector<V>(a.out + first + c, g);
    }
}
BY_WIDTH(layer_norm_gradient, LayerNormGradientArgs, 1)
