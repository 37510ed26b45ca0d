// A stand-in for the CUDA driver, for tests: device memory is host memory, kernels run in the emulator.
//
// Stricter than the real one where that finds mistakes: stream work runs only when somebody waits for it, memory that
// was freed is unmapped, allocations end near a page that may not be touched, calls without a current context fail,
// and a launch must have exactly the block size and no more dynamic shared memory than its kernel was set up for.
// What it cannot show: speed, races between streams, and whether a real driver accepts the same calls.
#include "../emulator/emulator.h"
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <vector>

namespace emulator {
void run(const char* name, void (*kernel)(const void*), const void* arguments, Dim3 grid, u32 threads, size_t bytes);
}

namespace {
enum Result { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_IMAGE = 200, INVALID_CONTEXT = 201,
              NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901 };

struct Function {
    std::string name;
    void (*run)(const void*);
    const u32* facts; // bytes of the parameter, threads of a block
    size_t shared_bytes_max = 48 << 10;
};
struct Launch {
    Function* function;
    emulator::Dim3 grid;
    u32 threads;
    size_t shared_bytes;
    std::vector<u8> arguments;
};
struct Graph {
    std::vector<Launch> nodes;
};
struct Stream {
    std::deque<std::function<void()>> work;
    bool capturing = false, invalidated = false;
    Graph* graph = nullptr;
};
struct Event {
    u64 serial = 0;
};
struct Block {
    u8* mapped;
    size_t mapped_bytes, bytes;
};

std::recursive_mutex lock;
std::map<u64, Block> blocks;
std::set<Stream*> streams;
std::set<std::thread::id> callers;
size_t cap = (size_t)4 << 30, used;
int devices = 1, sticky, driver_version = 13000, capability = 90, processors = 132;
long long launches, launches_until_break = -1, graphs_alive, bytes_max, allocations;
std::string launch_log;
bool execute = !std::getenv("STAND_IN_DRY"); // set: launches are counted and not run
thread_local void* context;
char the_context;

// Every entry: one lock, the broken context's error, the current context.
struct Entry {
    std::lock_guard<std::recursive_mutex> guard{lock};
    Entry() { callers.insert(std::this_thread::get_id()); }
    int error(bool needs_context = true) const { return sticky ? sticky : needs_context && !context ? INVALID_CONTEXT : SUCCESS; }
};
#define ENTER(...)                                                                                                     \
    Entry entry;                                                                                                       \
    if (int error = entry.error(__VA_ARGS__))                                                                          \
    return error

int flush(Stream* stream) {
    while (!stream->work.empty() && !sticky) {
        auto work = std::move(stream->work.front());
        stream->work.pop_front();
        work();
    }
    return sticky;
}
int flush_all() {
    for (Stream* stream : streams)
        if (stream->capturing) {
            stream->invalidated = true;
            return CAPTURE_UNSUPPORTED;
        }
    for (Stream* stream : streams)
        if (int error = flush(stream))
            return error;
    return SUCCESS;
}
void perform(const Launch& launch) {
    launches++;
    launch_log += launch.function->name + "\n";
    if (launches_until_break >= 0 && launches_until_break-- == 0) {
        sticky = ILLEGAL_ADDRESS;
        return;
    }
    if (execute)
        emulator::run(launch.function->name.c_str(), launch.function->run, launch.arguments.data(), launch.grid, launch.threads,
                      launch.shared_bytes);
}
} // namespace

extern "C" {
// For tests.
void stand_in_reset() {
    std::lock_guard<std::recursive_mutex> guard(lock);
    cap = (size_t)4 << 30;
    devices = 1;
    sticky = 0;
    driver_version = 13000;
    capability = 90;
    processors = 132;
    launches = 0;
    launches_until_break = -1;
    bytes_max = (long long)used;
    allocations = 0;
    launch_log.clear();
    callers.clear();
    execute = true;
}
void stand_in_set(const char* what, long long value) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    std::string name = what;
    if (name == "cap") cap = (size_t)value;
    else if (name == "devices") devices = (int)value;
    else if (name == "driver_version") driver_version = (int)value;
    else if (name == "capability") capability = (int)value;
    else if (name == "processors") processors = (int)value;
    else if (name == "launches_until_break") launches_until_break = value;
    else if (name == "execute") execute = value != 0;
    else abort();
}
long long stand_in_get(const char* what) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    std::string name = what;
    if (name == "used") return (long long)used;
    if (name == "bytes_max") return bytes_max;
    if (name == "allocations") return allocations;
    if (name == "blocks") return (long long)blocks.size();
    if (name == "launches") return launches;
    if (name == "graphs") return graphs_alive;
    if (name == "streams") return (long long)streams.size();
    if (name == "threads") return (long long)callers.size();
    abort();
}
const char* stand_in_launch_log() { return launch_log.c_str(); }

int cuInit(u32) { Entry entry; return devices == 0 ? NO_DEVICE : SUCCESS; }
int cuDriverGetVersion(int* version) { *version = driver_version; return SUCCESS; }
int cuDeviceGetCount(int* count) { ENTER(false); *count = devices; return SUCCESS; }
int cuDeviceGet(int* device, int ordinal) {
    ENTER(false);
    if (ordinal < 0 || ordinal >= devices) return 101;
    *device = ordinal;
    return SUCCESS;
}
int cuDeviceGetName(char* name, int length, int) { ENTER(false); std::snprintf(name, length, "stand-in"); return SUCCESS; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { ENTER(false); *bytes = cap; return SUCCESS; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    ENTER(false);
    switch (attribute) {
    case 16: *value = processors; return SUCCESS;      // multiprocessors
    case 75: *value = capability / 10; return SUCCESS; // compute capability
    case 76: *value = capability % 10; return SUCCESS;
    case 97: *value = 227 << 10; return SUCCESS; // shared memory of a block, opted in
    default: return INVALID_VALUE;
    }
}
int cuDevicePrimaryCtxRetain(void** out, int) { ENTER(false); *out = &the_context; return SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int) { Entry entry; return SUCCESS; }
int cuCtxSetCurrent(void* to) { Entry entry; context = to; return sticky; }
int cuCtxGetCurrent(void** to) { Entry entry; *to = context; return sticky; }

int cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
    ENTER();
    *free_bytes = cap - used;
    *total = cap;
    return SUCCESS;
}
int cuMemAlloc_v2(u64* pointer, size_t bytes) {
    ENTER();
    for (Stream* stream : streams)
        if (stream->capturing) {
            stream->invalidated = true;
            return CAPTURE_UNSUPPORTED;
        }
    if (bytes == 0) return INVALID_VALUE;
    size_t rounded = (bytes + 255) / 256 * 256;
    if (used + rounded > cap) return OUT_OF_MEMORY;
    size_t pages = (rounded + 4095) / 4096 * 4096;
    u8* mapped = (u8*)mmap(nullptr, pages + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(mapped, 4096, PROT_NONE);
    mprotect(mapped + 4096 + pages, 4096, PROT_NONE);
    u64 at = (u64)(mapped + 4096 + pages - rounded);
    if (bytes < ((size_t)1 << 28)) std::memset((void*)at, 0xff, rounded); // NaN: fresh device memory holds anything
    blocks[at] = {mapped, pages + 8192, rounded};
    used += rounded;
    allocations++;
    bytes_max = std::max(bytes_max, (long long)used);
    *pointer = at;
    return SUCCESS;
}
int cuMemFree_v2(u64 pointer) {
    ENTER();
    if (int error = flush_all()) return error;
    auto found = blocks.find(pointer);
    if (found == blocks.end()) return INVALID_VALUE;
    munmap(found->second.mapped, found->second.mapped_bytes);
    used -= found->second.bytes;
    blocks.erase(found);
    return SUCCESS;
}
int cuMemHostAlloc(void** pointer, size_t bytes, u32) { ENTER(); *pointer = std::malloc(bytes); return SUCCESS; }
int cuMemFreeHost(void* pointer) { ENTER(); if (int error = flush_all()) return error; std::free(pointer); return SUCCESS; }

static int enqueue(Stream* stream, std::function<void()> work) {
    if (!streams.count(stream)) return INVALID_VALUE;
    if (stream->capturing) {
        stream->invalidated = true; // only kernels are captured here
        return CAPTURE_UNSUPPORTED;
    }
    stream->work.push_back(std::move(work));
    return SUCCESS;
}
int cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t bytes, Stream* stream) {
    ENTER();
    std::vector<u8> copy((const u8*)from, (const u8*)from + bytes); // pageable memory is staged before the call returns
    return enqueue(stream, [to, copy = std::move(copy)] { std::memcpy((void*)to, copy.data(), copy.size()); });
}
int cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t bytes, Stream* stream) {
    ENTER();
    return enqueue(stream, [=] { std::memcpy(to, (const void*)from, bytes); });
}
int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, Stream* stream) {
    ENTER();
    return enqueue(stream, [=] { std::memmove((void*)to, (const void*)from, bytes); });
}
int cuMemsetD8Async(u64 to, u8 value, size_t bytes, Stream* stream) {
    ENTER();
    return enqueue(stream, [=] { std::memset((void*)to, value, bytes); });
}

int cuStreamCreate(Stream** out, u32) { ENTER(); streams.insert(*out = new Stream()); return SUCCESS; }
int cuStreamDestroy_v2(Stream* stream) {
    ENTER();
    flush(stream);
    streams.erase(stream);
    delete stream;
    return SUCCESS;
}
int cuStreamSynchronize(Stream* stream) {
    ENTER();
    if (stream->capturing) {
        stream->invalidated = true;
        return CAPTURE_UNSUPPORTED;
    }
    return flush(stream);
}
int cuStreamBeginCapture_v2(Stream* stream, int) {
    ENTER();
    if (stream->capturing) return INVALID_VALUE;
    stream->capturing = true;
    stream->invalidated = false;
    stream->graph = new Graph();
    return SUCCESS;
}
int cuStreamEndCapture(Stream* stream, Graph** out) {
    ENTER();
    if (!stream->capturing) return INVALID_VALUE;
    stream->capturing = false;
    *out = stream->graph;
    stream->graph = nullptr;
    if (stream->invalidated) {
        delete *out;
        *out = nullptr;
        return CAPTURE_INVALIDATED;
    }
    graphs_alive++;
    return SUCCESS;
}
int cuGraphInstantiateWithFlags(Graph** out, Graph* graph, u64) { ENTER(); *out = new Graph(*graph); graphs_alive++; return SUCCESS; }
int cuGraphGetNodes(Graph* graph, void**, size_t* count) { ENTER(); *count = graph->nodes.size(); return SUCCESS; }
int cuGraphUpload(Graph*, Stream*) { ENTER(); return SUCCESS; }
int cuGraphLaunch(Graph* graph, Stream* stream) {
    ENTER();
    return enqueue(stream, [graph] {
        for (const Launch& node : graph->nodes) {
            if (sticky) return;
            perform(node);
        }
    });
}
int cuGraphDestroy(Graph* graph) { ENTER(); graphs_alive--; delete graph; return SUCCESS; }
int cuGraphExecDestroy(Graph* graph) { ENTER(); if (int error = flush_all()) return error; graphs_alive--; delete graph; return SUCCESS; }

int cuModuleLoadData(void** module, const void* image) {
    ENTER();
    if (std::memcmp(image, "\177ELF", 4) != 0) return INVALID_IMAGE;
    *module = &the_context;
    return SUCCESS;
}
int cuModuleUnload(void*) { ENTER(); return SUCCESS; }
int cuModuleGetFunction(Function** out, void*, const char* name) {
    ENTER();
    std::string symbol = std::string("emulated_") + name;
    auto* run = (void (*)(const void*))dlsym(RTLD_DEFAULT, symbol.c_str());
    Dl_info here;
    void* self = dladdr((void*)&cuModuleGetFunction, &here) ? dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : nullptr;
    if (self) run = (void (*)(const void*))dlsym(self, symbol.c_str());
    const u32* facts = self ? (const u32*)dlsym(self, (symbol + "_facts").c_str()) : nullptr;
    if (!run || !facts) return NOT_FOUND;
    *out = new Function{name, run, facts};
    return SUCCESS;
}
int cuFuncGetParamInfo(Function* function, size_t index, size_t* offset, size_t* bytes) {
    ENTER();
    if (index > 0) return INVALID_VALUE;
    *offset = 0;
    *bytes = function->facts[0];
    return SUCCESS;
}
int cuFuncLoad(Function*) { ENTER(); return SUCCESS; }
int cuFuncGetAttribute(int* value, int attribute, Function* function) {
    ENTER();
    *value = attribute == 0 ? (int)function->facts[1] : 0;
    return SUCCESS;
}
int cuFuncSetAttribute(Function* function, int attribute, int value) {
    ENTER();
    if (attribute != 8 || value > 227 << 10) return INVALID_VALUE;
    function->shared_bytes_max = (size_t)value;
    return SUCCESS;
}
int cuLaunchKernel(Function* function, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32 shared_bytes, Stream* stream,
                   void** parameters, void**) {
    ENTER();
    bool fits = gx > 0 && gy > 0 && gz > 0 && gx <= 0x7fffffff && gy <= 65535 && gz <= 65535;
    if (!fits || bx != function->facts[1] || by != 1 || bz != 1 || shared_bytes > function->shared_bytes_max) return INVALID_VALUE;
    Launch launch{function, {gx, gy, gz}, bx, shared_bytes, {}};
    launch.arguments.assign((u8*)parameters[0], (u8*)parameters[0] + function->facts[0]);
    if (stream->capturing) {
        stream->graph->nodes.push_back(std::move(launch));
        return SUCCESS;
    }
    return enqueue(stream, [launch = std::move(launch)] { perform(launch); });
}

int cuEventCreate(Event** out, u32) { ENTER(); *out = new Event(); return SUCCESS; }
int cuEventRecord(Event*, Stream*) { ENTER(); return SUCCESS; }
int cuEventSynchronize(Event*) { ENTER(); return flush_all(); }
int cuEventElapsedTime(float* ms, Event*, Event*) { ENTER(); *ms = 1.0f; return SUCCESS; }
int cuEventElapsedTime_v2(float* ms, Event*, Event*) { ENTER(); *ms = 1.0f; return SUCCESS; }
int cuEventDestroy_v2(Event* event) { ENTER(); delete event; return SUCCESS; }
int cuGetErrorName(int error, const char** name) {
    *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : error == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR";
    return SUCCESS;
}
int cuGetErrorString(int error, const char** text) { return cuGetErrorName(error, text); }
}
