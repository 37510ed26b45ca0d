// A stand-in for NVRTC, for tests on machines without it: accepts any source that names no `#error`, and hands out an
// image that only the stand-in driver understands.
#include <cstring>
#include <string>

struct Program {
    std::string source, log;
};

static long long compiles;

extern "C" {
long long stand_in_compiles() { return compiles; }
int nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return 0; }
int nvrtcCreateProgram(Program** out, const char* source, const char*, int, const char* const*, const char* const*) {
    *out = new Program{source, ""};
    return 0;
}
int nvrtcCompileProgram(Program* program, int, const char* const*) {
    compiles++;
    if (program->source.find("#error") != std::string::npos) {
        program->log = "error: #error directive";
        return 6;
    }
    return 0;
}
int nvrtcGetProgramLogSize(Program* program, size_t* bytes) { *bytes = program->log.size() + 1; return 0; }
int nvrtcGetProgramLog(Program* program, char* log) { std::strcpy(log, program->log.c_str()); return 0; }
int nvrtcGetCUBINSize(Program*, size_t* bytes) { *bytes = 64; return 0; }
int nvrtcGetCUBIN(Program*, char* image) { std::memset(image, 0, 64); std::memcpy(image, "\177ELF", 4); return 0; }
int nvrtcDestroyProgram(Program** program) { delete *program; *program = nullptr; return 0; }
const char* nvrtcGetErrorString(int error) { return error == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR"; }
}
