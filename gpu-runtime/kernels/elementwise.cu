// Kernels without sums over a neighbourhood: gates, activations, tables, concatenation, embedding, sampler steps.
//
// All take 256 threads a block and ceil(work / 256) blocks; V = 8 where every row starts at a multiple of 16 bytes.

struct RowsArgs {
    const u16* left;
    const u16* right; // the second operand or table, or null
    u16* out;
    u64 rows;
    u32 channels; // of the output
    u32 left_channels;
    u32 rows_per_frame;
    u32 frames_per_clip;
    u32 function; // 0 SiLU, 1 GELU (exact), 2 quick GELU
    u32 reserved;
};

template <int V> __device__ __forceinline__ void geglu(const RowsArgs& a) {
    u64 row;
    u32 channel;
    if (!my_place<V>(a, row, channel))
        return;
    float x[V], gate[V];
    const u16* from = a.left + row * 2 * a.channels + channel;
    load_vector<V>(x, from);
    load_vector<V>(gate, from + a.channels);
#pragma unroll
    for (int i = 0; i < V; i++)
        x[i] *= gelu(gate[i]);
    store_vector<V>(a.out + row * a.channels + channel, x);
}
BY_WIDTH(geglu, RowsArgs, 1)

template <int V> __device__ __forceinline__ void activation(const RowsArgs& a) {
    u64 row;
    u32 channel;
    if (!my_place<V>(a, row, channel))
        return;
    float x[V];
    load_vector<V>(x, a.left + row * a.channels + channel);
#pragma unroll
    for (int i = 0; i < V; i++)
        x[i] = a.function == 0 ? x[i] * sigmoid(x[i]) : a.function == 1 ? gelu(x[i]) : x[i] * sigmoid(1.702f * x[i]);
    store_vector<V>(a.out + row * a.channels + channel, x);
}
BY_WIDTH(activation, RowsArgs, 1)

template <int V> __device__ __forceinline__ void add_frame_table(const RowsArgs& a) {
    u64 row;
    u32 channel;
    if (!my_place<V>(a, row, channel))
        return;
    u32 frame = (u32)(row / a.rows_per_frame) % a.frames_per_clip;
    float x[V], y[V];
    load_vector<V>(x, a.left + row * a.channels + channel);
    load_vector<V>(y, a.right + (u64)frame * a.channels + channel);
#pragma unroll
    for (int i = 0; i < V; i++)
        x[i] += y[i];
    store_vector<V>(a.out + row * a.channels + channel, x);
}
BY_WIDTH(add_frame_table, RowsArgs, 1)

// Both widths are multiples of V.
template <int V> __device__ __forceinline__ void concat(const RowsArgs& a) {
    u64 row;
    u32 channel;
    if (!my_place<V>(a, row, channel))
        return;
    const u16* from = channel < a.left_channels
                          ? a.left + row * a.left_channels + channel
                          : a.right + row * (a.channels - a.left_channels) + (channel - a.left_channels);
    if constexpr (V == 8)
        *(Vec16*)(a.out + row * a.channels + channel) = *(const Vec16*)from;
    else
        a.out[row * a.channels + channel] = *from;
}
BY_WIDTH(concat, RowsArgs, 1)

struct EmbedArgs {
    const float* ids; // integers held exactly
    const u16* tokens;
    const u16* positions;
    u16* out;
    u32 count;
    u32 channels;
    u32 vocabulary;
    u32 reserved;
};

KERNEL(embed, EmbedArgs, 256, 1) {
    u64 index = (u64)blockIdx.x * 256 + threadIdx.x;
    u32 token = (u32)(index / a.channels);
    u32 channel = (u32)(index - (u64)token * a.channels);
    if (token >= a.count)
        return;
    u32 id = min((u32)a.ids[token], a.vocabulary - 1);
    a.out[index] = to_bf16(from_bf16(a.tokens[(u64)id * a.channels + channel]) + from_bf16(a.positions[index]));
}

// Terms and result are bf16 or, where the bit of `single` is set (bit i: term i, bit 8: result), f32.
struct CombineArgs {
    const void* term[4];
    void* out;
    const float* coefficients;
    u64 elements;
    u32 terms;
    u32 single;
};

KERNEL(combine, CombineArgs, 256, 1) {
    u64 index = (u64)blockIdx.x * 256 + threadIdx.x;
    if (index >= a.elements)
        return;
    float sum = 0.0f;
#pragma unroll
    for (u32 i = 0; i < 4; i++)
        if (i < a.terms) {
            float x = a.single >> i & 1 ? ((const float*)a.term[i])[index] : from_bf16(((const u16*)a.term[i])[index]);
            // A term with coefficient zero may hold anything, such as noise that a last step does not use.
            float c = a.coefficients[i];
            if (c != 0.0f)
                sum += c * x;
        }
    if (a.single >> 8 & 1)
        ((float*)a.out)[index] = sum;
    else
        ((u16*)a.out)[index] = to_bf16(sum);
}
