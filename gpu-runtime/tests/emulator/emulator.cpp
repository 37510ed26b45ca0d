// The scheduler behind emulator.h: fibers, meetings, asynchronous copies, shared memory with a guard page.
#include "emulator.h"
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <sys/mman.h>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulator {
Dim3 thread_index, block_index;
u8* shared;
size_t shared_bytes;

namespace {
constexpr size_t STACK_BYTES = 128 << 10;
enum class State { Ready, AtWarp, AtBlock, Done };

struct Fiber {
#if defined(__x86_64__)
    void* stack_pointer;
#else
    ucontext_t context;
#endif
    u8* stack;
    State state;
    u32 turn;
    std::deque<std::vector<Copy>> groups; // committed
    std::vector<Copy> open;
    bool unfenced; // copies have landed that the tensor cores may not see yet
    std::vector<Product> products;
};

std::vector<Fiber> fibers;
u32 thread_count, current, live, at_block;
std::vector<u32> at_warp;
std::vector<Exchange> exchanges; // [warp][turn]
void (*body)(const void*);
const void* body_arguments;
const char* kernel_name;
#if defined(__x86_64__)
void* main_stack_pointer;
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
#else
ucontext_t main_context;
#endif

void switch_to(u32 next) {
    u32 from = current;
    current = next;
    thread_index = {next, 0, 0};
#if defined(__x86_64__)
    emulator_switch(&fibers[from].stack_pointer, fibers[next].stack_pointer);
#else
    swapcontext(&fibers[from].context, &fibers[next].context);
#endif
    thread_index = {current, 0, 0};
}

// Runs somebody else; returns when this fiber is chosen again.
void yield_fiber() {
    u32 me = current;
    for (u32 step = 1; step <= thread_count; step++) {
        u32 next = me + step < thread_count ? me + step : me + step - thread_count;
        if (fibers[next].state == State::Ready) {
            if (next != me)
                switch_to(next);
            return;
        }
    }
    fail("deadlock: threads wait at different collectives");
}

void release_block() {
    at_block = 0;
    for (u32 i = 0; i < thread_count; i++)
        if (fibers[i].state == State::AtBlock)
            fibers[i].state = State::Ready;
}

void fiber_main() {
    thread_index = {current, 0, 0};
    body(body_arguments);
    Fiber& me = fibers[current];
    if (!me.open.empty())
        fail("a thread ended with asynchronous copies that it never committed");
    if (!me.products.empty())
        fail("a thread ended with products that it never waited for");
    me.state = State::Done;
    live--;
    if (live > 0 && at_block == live)
        release_block();
    if (live > 0)
        yield_fiber();
#if defined(__x86_64__)
    void* discarded;
    emulator_switch(&discarded, main_stack_pointer);
#else
    setcontext(&main_context);
#endif
    abort();
}

void land(const Copy& copy) {
    if (copy.valid)
        std::memcpy(copy.to, copy.from, 16);
    else
        std::memset(copy.to, 0, 16);
}
} // namespace

void fail(const char* what) {
    std::fprintf(stderr, "emulator: kernel %s, block (%u, %u, %u), thread %u: %s\n", kernel_name, block_index.x, block_index.y,
                 block_index.z, current, what);
    std::abort();
}

u32 lane() {
    return current & 31;
}

Exchange& next_exchange() {
    Fiber& me = fibers[current];
    me.turn ^= 1;
    return exchanges[current / 32 * 2 + me.turn];
}

void meet_warp() {
    u32 warp = current / 32;
    if (++at_warp[warp] == 32) {
        at_warp[warp] = 0;
        for (u32 i = warp * 32; i < warp * 32 + 32; i++)
            fibers[i].state = State::Ready;
        return;
    }
    fibers[current].state = State::AtWarp;
    yield_fiber();
}

void meet_block() {
    if (++at_block == live) {
        release_block();
        return;
    }
    fibers[current].state = State::AtBlock;
    yield_fiber();
}

bool in_shared(const void* pointer, size_t bytes) {
    return pointer >= shared && (const u8*)pointer + bytes <= shared + shared_bytes;
}

void copy_begin(const Copy& copy) {
    if (((uintptr_t)copy.to & 15) || ((uintptr_t)copy.from & 15) || !in_shared(copy.to, 16))
        fail("cp.async: address not aligned to 16 bytes or target not in shared memory");
    std::memset(copy.to, 0xff, 16); // NaN until it has landed
    fibers[current].open.push_back(copy);
}

void copy_close() {
    Fiber& me = fibers[current];
    me.groups.push_back(std::move(me.open));
    me.open.clear();
}

void copy_finish(int groups_left) {
    Fiber& me = fibers[current];
    while ((int)me.groups.size() > groups_left) {
        for (const Copy& copy : me.groups.front())
            land(copy);
        me.unfenced |= !me.groups.front().empty();
        me.groups.pop_front();
    }
}

void fence_copies() {
    fibers[current].unfenced = false;
}

void product_begin(const Product& product) {
    if (current % 128 == 0)
        for (u32 i = 0; i < thread_count; i++)
            if (fibers[i].unfenced)
                fail("wgmma: a thread's writes to shared memory were not fenced");
    if (thread_count % 128 != 0)
        fail("wgmma: warpgroups are four whole warps");
    fibers[current].products.push_back(product);
}

// Element of an operand: row `row`, inner position `inner`, by the rules of the 128-byte swizzle with the inner axis
// contiguous: bits 4..6 of the address are xored with bits 7..9.
static float operand(u64 descriptor, u32 row, u32 inner) {
    u64 start = (descriptor & 0x3fff) << 4, stride = (descriptor >> 32 & 0x3fff) << 4;
    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0)
        fail("wgmma: only the 128-byte swizzle without base offset is modelled");
    u64 at = start + row / 8 * stride + row % 8 * 128 + inner * 2;
    at ^= (at >> 7 & 7) << 4;
    if (at + 2 > shared_bytes)
        fail("wgmma: operand outside shared memory");
    u16 bits;
    std::memcpy(&bits, shared + at, 2);
    return float_of_bits((u32)bits << 16);
}

void product_finish() {
    Fiber& me = fibers[current];
    u32 warp_row = current % 128 / 32 * 16 + lane() / 4;
    for (const Product& product : me.products) {
        float a[2][16];
        for (u32 part = 0; part < 2; part++)
            for (u32 k = 0; k < 16; k++)
                a[part][k] = operand(product.a, warp_row + 8 * part, k);
        for (u32 column = lane() % 4 * 2; column < product.columns; column += 8)
            for (u32 right = 0; right < 2; right++) {
                double sum[2] = {0, 0};
                for (u32 k = 0; k < 16; k++) {
                    float b = operand(product.b, column + right, k);
                    sum[0] += (double)(a[0][k] * b);
                    sum[1] += (double)(a[1][k] * b);
                }
                product.sums[column / 8 * 4 + right] += (float)sum[0];
                product.sums[column / 8 * 4 + 2 + right] += (float)sum[1];
            }
    }
    me.products.clear();
}

// Runs one block after another. `arguments` is the kernel's only parameter.
void run(const char* name, void (*kernel)(const void*), const void* arguments, Dim3 grid, u32 threads, size_t bytes) {
    if (threads == 0 || threads % 32 != 0 || threads > 1024) {
        kernel_name = name;
        fail("a block must have 32 to 1024 threads in whole warps");
    }
    kernel_name = name;
    body = kernel;
    body_arguments = arguments;
    thread_count = threads;
    at_warp.assign(threads / 32, 0);
    exchanges.resize(threads / 32 * 2);
    while (fibers.size() < threads) {
        void* stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED)
            fail("no memory for a fiber's stack");
        fibers.emplace_back();
        fibers.back().stack = (u8*)stack;
    }
    // Shared memory ends at a page that may not be touched.
    size_t pages = (bytes + 4095) / 4096 * 4096;
    u8* mapped = (u8*)mmap(nullptr, pages + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED || mprotect(mapped + pages, 4096, PROT_NONE) != 0)
        fail("no memory for shared memory");
    shared = mapped + pages - (bytes + 1023) / 1024 * 1024; // swizzle atoms want 1024-byte alignment
    shared_bytes = bytes;
    for (u32 z = 0; z < grid.z; z++)
        for (u32 y = 0; y < grid.y; y++)
            for (u32 x = 0; x < grid.x; x++) {
                block_index = {x, y, z};
                std::memset(shared, 0xff, bytes);
                live = threads;
                at_block = 0;
                for (u32 i = 0; i < threads; i++) {
                    Fiber& fiber = fibers[i];
                    fiber.state = State::Ready;
                    fiber.turn = 0;
                    fiber.groups.clear();
                    fiber.open.clear();
                    fiber.products.clear();
                    fiber.unfenced = false;
#if defined(__x86_64__)
                    void** top = (void**)(fiber.stack + STACK_BYTES);
                    *--top = nullptr; // keeps the stack aligned as after a call
                    *--top = (void*)fiber_main;
                    for (int r = 0; r < 6; r++)
                        *--top = nullptr;
                    fiber.stack_pointer = top;
#else
                    getcontext(&fiber.context);
                    fiber.context.uc_stack.ss_sp = fiber.stack;
                    fiber.context.uc_stack.ss_size = STACK_BYTES;
                    makecontext(&fiber.context, fiber_main, 0);
#endif
                }
                current = 0;
                thread_index = {0, 0, 0};
#if defined(__x86_64__)
                emulator_switch(&main_stack_pointer, fibers[0].stack_pointer);
#else
                swapcontext(&main_context, &fibers[0].context);
#endif
            }
    munmap(mapped, pages + 4096);
}
} // namespace emulator
