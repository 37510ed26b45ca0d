// What every kernel needs: bf16 conversions, tensor-core and asynchronous-copy wrappers. Placed before each kernel file.
//
// No header is included, so NVRTC alone compiles it. PTX stands only here; each wrapper has a plain C++ twin in
// tests/emulator/emulator.h, which lets the same sources run on a CPU. Kernels take one struct by value: its twin in
// Rust is in src/cuda/arguments.rs, and the two sizes are compared when a module is loaded.

#ifdef HEADROOM_EMULATOR
#include "emulator.h"
#else

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define KERNEL(name, Args, threads, blocks)                                                                            \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Args a)

extern __shared__ __align__(1024) u8 dynamic_shared[];

__device__ __forceinline__ u32 shared_address(const void* pointer) {
    return (u32)__cvta_generic_to_shared(pointer);
}

// Two f32 as bf16, rounded to nearest even; `low` lies at the lower address.
__device__ __forceinline__ u32 pack_bf16(float low, float high) {
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

__device__ __forceinline__ float float_of_bits(u32 bits) {
    return __uint_as_float(bits);
}

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// d += a * b for one 16x8x16 tile. Fragments as the PTX manual draws them for mma.m16n8k16 (row.col) with bf16.
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8x8 matrices; lane l gives the address of row l % 8 of matrix l / 8 (16 bytes each).
__device__ __forceinline__ void load_matrices(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// 16 bytes from global to shared memory in the background; zeros where not `valid` (the source is then not read).
__device__ __forceinline__ void copy_async(void* to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most `N` of this thread's committed groups are still under way.
template <int N> __device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

__device__ __forceinline__ float shuffle_xor(float x, int mask) {
    return __shfl_xor_sync(0xffffffffu, x, mask);
}

__device__ __forceinline__ void sync_block() {
    __syncthreads();
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// Products of a warpgroup (sm_90a): d += a * b for 64 x N x 16, both operands in shared memory, in the background.

// Where a tile of rows of 128 bytes lies: swizzled in atoms of 8 rows (1024 bytes, aligned to as much), inner axis
// contiguous. The next 16 inner elements are 32 bytes on: add 2.
__device__ __forceinline__ u64 tile_descriptor(const void* tile) {
    u64 start = (shared_address(tile) & 0x3ffff) >> 4;
    return start | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

// Before the first product, and wherever other code has touched the sums.
__device__ __forceinline__ void warpgroup_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void warpgroup_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void warpgroup_wait() {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

// Keeps the compiler from moving uses of a sum across a wait.
__device__ __forceinline__ void hold(float& sum) {
    asm volatile("" : "+f"(sum)::"memory");
}

// Makes this thread's writes to shared memory visible to the tensor cores, before a barrier.
__device__ __forceinline__ void fence_async() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void warpgroup_mma(float (&d)[64], u64 a, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, 1, 1, 1, 0, 0;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
                   "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
                   "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]),
                   "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
                   "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
                   "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),
                   "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
                   "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
                   "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]),
                   "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]),
                   "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
                 : "l"(a), "l"(b));
}

__device__ __forceinline__ void warpgroup_mma(float (&d)[80], u64 a, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n160k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
                 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79}, "
                 "%80, %81, 1, 1, 1, 0, 0;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
                   "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
                   "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]),
                   "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
                   "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
                   "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),
                   "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
                   "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
                   "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]),
                   "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]),
                   "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]), "+f"(d[64]), "+f"(d[65]),
                   "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]),
                   "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]),
                   "+f"(d[78]), "+f"(d[79])
                 : "l"(a), "l"(b));
}
#endif

#endif

// Two kernels of one template: of eight channels a thread, where rows begin at multiples of 16 bytes, and of one.
#define BY_WIDTH(name, Args, blocks)                                                                                   \
    KERNEL(name##_8, Args, 256, blocks) {                                                                              \
        name<8>(a);                                                                                                    \
    }                                                                                                                  \
    KERNEL(name##_1, Args, 256, blocks) {                                                                              \
        name<1>(a);                                                                                                    \
    }

struct __align__(16) Vec16 {
    u32 word[4];
};

__device__ __forceinline__ float low_bf16(u32 packed) {
    return float_of_bits(packed << 16);
}

__device__ __forceinline__ float high_bf16(u32 packed) {
    return float_of_bits(packed & 0xffff0000u);
}

__device__ __forceinline__ float from_bf16(u16 bits) {
    return float_of_bits((u32)bits << 16);
}

__device__ __forceinline__ u16 to_bf16(float x) {
    return (u16)pack_bf16(x, 0.0f);
}

// Eight consecutive bf16; `pointer` is 16-byte aligned.
__device__ __forceinline__ void load8(float (&x)[8], const u16* pointer) {
    Vec16 v = *(const Vec16*)pointer;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = low_bf16(v.word[i]);
        x[2 * i + 1] = high_bf16(v.word[i]);
    }
}

__device__ __forceinline__ void store8(u16* pointer, const float (&x)[8]) {
    Vec16 v;
#pragma unroll
    for (int i = 0; i < 4; i++)
        v.word[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
    *(Vec16*)pointer = v;
}

// V consecutive bf16, V = 1 or 8.
template <int V> __device__ __forceinline__ void load_vector(float (&x)[V], const u16* pointer) {
    if constexpr (V == 8)
        load8(x, pointer);
    else
        x[0] = from_bf16(*pointer);
}

template <int V> __device__ __forceinline__ void store_vector(u16* pointer, const float (&x)[V]) {
    if constexpr (V == 8)
        store8(pointer, x);
    else
        *pointer = to_bf16(x[0]);
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1)
        x += shuffle_xor(x, mask);
    return x;
}

// ceil(a / b), also for the host's grids.
__device__ __forceinline__ u32 quotient_up(u32 a, u32 b) {
    return (a + b - 1) / b;
}

// Row and first channel of this thread's vector of V channels, of `rows` rows of `channels`; whether there is one. Of blocks of
// 256 threads.
template <int V, class Args> __device__ __forceinline__ bool my_place(const Args& a, u64& row, u32& channel) {
    u64 index = ((u64)blockIdx.x * 256 + threadIdx.x) * V;
    row = index / a.channels;
    channel = (u32)(index - row * a.channels);
    return row < a.rows;
}

__device__ __forceinline__ float sigmoid(float x) {
    return 1.0f / (1.0f + exp2_fast(-1.44269504f * x));
}

// 0.5 x (1 + erf(x / sqrt 2)).
__device__ __forceinline__ float gelu(float x) {
    return 0.5f * x * (1.0f + erff(x * 0.70710678f));
}

// Copies ROWS rows of WIDTH columns to shared memory, WIDTH + 8 apart; zeros past `limit` rows and past `head_width` columns.
template <int ROWS, int WIDTH, int THREADS, bool ALIGNED>
__device__ __forceinline__ void fetch_rows(u16* to, const u16* from, u32 token_stride, u32 row_first, u32 limit,
                                           u32 column_first, u32 head_width) {
    constexpr int PITCH = WIDTH + 8;
    constexpr int CHUNKS = WIDTH / 8;
    for (u32 index = threadIdx.x; index < ROWS * CHUNKS; index += THREADS) {
        u32 row = index / CHUNKS;
        u32 chunk = index % CHUNKS;
        u32 column = column_first + chunk * 8;
        bool valid = row_first + row < limit && column < head_width;
        const u16* at = from + (valid ? (u64)(row_first + row) * token_stride + column : 0);
        u16* target = to + row * PITCH + chunk * 8;
        if constexpr (ALIGNED) {
            copy_async(target, at, valid);
        } else {
            Vec16 v;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                u32 low = valid && column + 2 * j < head_width ? at[2 * j] : 0;
                u32 high = valid && column + 2 * j + 1 < head_width ? at[2 * j + 1] : 0;
                v.word[j] = low | high << 16;
            }
            *(Vec16*)target = v;
        }
    }
}

// Sums of a 16 x C tile, in fragments of mma_16x8x16.
template <int C> __device__ __forceinline__ void clear(float (&sum)[C / 8][4]) {
#pragma unroll
    for (int j = 0; j < C / 8; j++)
#pragma unroll
        for (int k = 0; k < 4; k++)
            sum[j][k] = 0.0f;
}

// sum += left * tile: 16 x N numbers, rounded to bf16, times C columns of the tile's N rows, PITCH apart in shared memory.
template <int N, int C, int PITCH>
__device__ __forceinline__ void add_products(float (&sum)[C / 8][4], const float (&left)[N / 8][4], const u16* tile, u32 lane) {
#pragma unroll
    for (int step = 0; step < N / 16; step++) {
        u32 a[4] = {pack_bf16(left[2 * step][0], left[2 * step][1]), pack_bf16(left[2 * step][2], left[2 * step][3]),
                    pack_bf16(left[2 * step + 1][0], left[2 * step + 1][1]), pack_bf16(left[2 * step + 1][2], left[2 * step + 1][3])};
#pragma unroll
        for (int j = 0; j < C / 16; j++) {
            u32 b[4];
            load_matrices_transposed(b, tile + (step * 16 + (lane & 15)) * PITCH + j * 16 + (lane >> 4) * 8);
            mma_16x8x16(sum[2 * j], a, b[0], b[1]);
            mma_16x8x16(sum[2 * j + 1], a, b[2], b[3]);
        }
    }
}
