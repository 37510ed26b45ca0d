// Runs the sources of gpu-runtime/kernels on a CPU: every thread of a block is a fiber, warps and blocks meet at
// collectives. Included by kernels/prelude.cu in place of its PTX.
//
// Asynchronous copies land as late as the rules allow (at the wait that covers them) and their target holds NaN until
// then, so that a missing wait or barrier shows in the result. Speed, memory order and bank conflicts are not modelled.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float2 make_float2(float x, float y) {
    return {x, y};
}
using std::max;
using std::min;
inline float rsqrtf(float x) {
    return 1.0f / std::sqrt(x);
}

#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __align__(n) alignas(n)

namespace emulator {
struct Dim3 {
    u32 x, y, z;
};
extern Dim3 thread_index, block_index;
extern u8* shared;
extern size_t shared_bytes;

[[noreturn]] void fail(const char* what);
void meet_warp();  // returns when all 32 lanes of this warp have come
void meet_block(); // returns when all live threads of this block have come
u32 lane();

// What the lanes of a warp show each other at a collective. Two turns alternate, so that one meeting is enough: a lane
// cannot write a turn again before every lane has passed the meeting after it.
struct Exchange {
    u64 word[32][8];
};
Exchange& next_exchange();

struct Copy {
    void* to;
    const void* from;
    bool valid;
};
void copy_begin(const Copy& copy);
void copy_close();
void copy_finish(int groups_left);
bool in_shared(const void* pointer, size_t bytes);
void fence_copies();
void require_fenced();

// A product of a warpgroup that is under way: done, as late as allowed, when its thread waits.
struct Product {
    float* sums;
    u32 columns;
    u64 a, b;
};
void product_begin(const Product& product);
void product_finish();
} // namespace emulator

#define threadIdx (::emulator::thread_index)
#define blockIdx (::emulator::block_index)
#define dynamic_shared (::emulator::shared)

#define KERNEL(name, Args, threads, blocks)                                                                            \
    static void name##_body(const Args& a);                                                                            \
    extern "C" void emulated_##name(const void* arguments) {                                                           \
        name##_body(*(const Args*)arguments);                                                                          \
    }                                                                                                                  \
    extern "C" const u32 emulated_##name##_facts[2] = {sizeof(Args), threads};                                         \
    static void name##_body(const Args& a)

inline float float_of_bits(u32 bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline u32 round_bf16(float x) {
    u32 bits;
    std::memcpy(&bits, &x, 4);
    if (x != x)
        return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline u32 pack_bf16(float low, float high) {
    return round_bf16(low) | round_bf16(high) << 16;
}

inline float exp2_fast(float x) {
    return x < -126.0f ? 0.0f : std::exp2(x);
}

inline float shuffle_xor(float x, int mask) {
    emulator::Exchange& exchange = emulator::next_exchange();
    u32 lane = emulator::lane();
    std::memcpy(&exchange.word[lane][0], &x, 4);
    emulator::meet_warp();
    std::memcpy(&x, &exchange.word[lane ^ mask][0], 4);
    return x;
}

inline void mma_16x8x16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    emulator::Exchange& exchange = emulator::next_exchange();
    u32 lane = emulator::lane();
    u64* mine = exchange.word[lane];
    mine[0] = a[0] | (u64)a[1] << 32;
    mine[1] = a[2] | (u64)a[3] << 32;
    mine[2] = b0 | (u64)b1 << 32;
    emulator::meet_warp();
    u32 group = lane >> 2, pair = lane & 3;
    for (u32 part = 0; part < 2; part++)      // rows group and group + 8
        for (u32 right = 0; right < 2; right++) { // columns 2 pair and 2 pair + 1
            double sum = 0;
            for (u32 k = 0; k < 16; k++) {
                // a: registers 0..3 hold rows g, g+8 of k 0..7, then of k 8..15, lane g*4 + k%8/2; b: k halves.
                u32 half = k >> 3, inside = k & 7;
                u32 a_bits = (u32)(exchange.word[group * 4 + inside / 2][half] >> (part * 32));
                u32 b_bits = (u32)(exchange.word[(pair * 2 + right) * 4 + inside / 2][2] >> (half * 32));
                u32 a_element = inside & 1 ? a_bits >> 16 : a_bits & 0xffff;
                u32 b_element = inside & 1 ? b_bits >> 16 : b_bits & 0xffff;
                sum += (double)(float_of_bits(a_element << 16) * float_of_bits(b_element << 16));
            }
            d[part * 2 + right] += (float)sum;
        }
}

inline const u8* const* show_rows(const void* row) {
    if (((uintptr_t)row & 15) || !emulator::in_shared(row, 16))
        emulator::fail("ldmatrix: row not aligned or not in shared memory");
    emulator::Exchange& exchange = emulator::next_exchange();
    static thread_local const u8* rows[32];
    exchange.word[emulator::lane()][0] = (u64)row;
    emulator::meet_warp();
    for (u32 i = 0; i < 32; i++)
        rows[i] = (const u8*)exchange.word[i][0];
    return rows;
}

inline void load_matrices(u32 (&r)[4], const void* row) {
    const u8* const* rows = show_rows(row);
    u32 lane = emulator::lane();
    for (u32 i = 0; i < 4; i++)
        std::memcpy(&r[i], rows[i * 8 + lane / 4] + lane % 4 * 4, 4);
}

inline void load_matrices_transposed(u32 (&r)[4], const void* row) {
    const u8* const* rows = show_rows(row);
    u32 lane = emulator::lane();
    for (u32 i = 0; i < 4; i++) {
        u16 low, high;
        std::memcpy(&low, rows[i * 8 + lane % 4 * 2] + lane / 4 * 2, 2);
        std::memcpy(&high, rows[i * 8 + lane % 4 * 2 + 1] + lane / 4 * 2, 2);
        r[i] = low | (u32)high << 16;
    }
}

inline void copy_async(void* to, const void* from, bool valid) {
    emulator::copy_begin({to, from, valid});
}
inline void copy_commit() {
    emulator::copy_close();
}
template <int N> inline void copy_wait() {
    emulator::copy_finish(N);
}
inline u64 tile_descriptor(const void* tile) {
    u64 start = (u64)((const u8*)tile - emulator::shared) >> 4;
    return start | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}
inline void hold(float&) {}
inline void warpgroup_fence() {}
inline void warpgroup_commit() {}
inline void warpgroup_wait() {
    emulator::product_finish();
}
inline void fence_async() {
    emulator::fence_copies();
}
template <int HALF> inline void warpgroup_mma(float (&d)[HALF], u64 a, u64 b) {
    emulator::product_begin({d, 2 * HALF, a, b});
}
inline void sync_block() {
    emulator::meet_block();
}
