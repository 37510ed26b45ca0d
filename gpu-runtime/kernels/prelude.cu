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

#endif

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
