// NVIDIA's driver for machines without a GPU: the calls that our libraries make of libcuda.so.1, over the host's
// memory and kernels compiled with emulator.h. It stands in for the driver in tests of programs that have such a
// library; it has two GPUs, and says of each call what the driver says of it.
//
//     GT_EMULATED_CAPABILITY=9.0   what the GPUs are (8.0)
//     GT_EMULATED_MEMORY=1000000   bytes of each (1 GiB)
//     GT_EMULATED_REPORT=FILE      where JSON goes when the program ends: what was done, and not given back

#include <dlfcn.h>
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <map>
#include <mutex>
#include <string>
#include <vector>

#define CALL extern "C" __attribute__((visibility("default"))) Code

namespace {

enum Code {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201, NO_BINARY_FOR_GPU = 209, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700
};
const std::map<int, const char *> WORDS = {
    {SUCCESS, "no error"}, {INVALID_VALUE, "invalid argument"}, {OUT_OF_MEMORY, "out of memory"},
    {NOT_INITIALIZED, "initialization error"}, {INVALID_DEVICE, "invalid device ordinal"},
    {INVALID_IMAGE, "device kernel image is invalid"}, {INVALID_CONTEXT, "invalid device context"},
    {NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device"},
    {NOT_FOUND, "named symbol not found"}, {ILLEGAL_ADDRESS, "an illegal memory access was encountered"}};

const int GPUS = 2;
struct Context {
  int device, retained;
  size_t held;
};
struct Module { void *library; };
typedef const char *Emulated(void **, const unsigned *, const unsigned *, size_t, int);
typedef void Ranges(unsigned, const char **, const size_t *);
struct Function {
  Emulated *call;
  Ranges *ranges;
  size_t shared;
};
struct Memory {
  size_t size;
  Context *context;
};

std::recursive_mutex mutex;
bool initialized;
Code broken = SUCCESS;  // an error that a context does not recover from
Context contexts[GPUS] = {{0, 0, 0}, {1, 0, 0}};
thread_local std::vector<Context *> current;
std::map<uintptr_t, Memory> memory;
size_t launches, allocations, modules;

size_t number(const char *name, size_t otherwise) {
  const char *text = getenv(name);
  return text ? strtoull(text, nullptr, 10) : otherwise;
}

struct Report {
  ~Report() {
    const char *path = getenv("GT_EMULATED_REPORT");
    FILE *file = path && launches ? fopen(path, "w") : nullptr;
    if (!file) return;
    fprintf(file, "{\"launches\": %zu, \"allocations\": %zu, \"memory\": %zu, \"modules\": %zu, \"contexts\": %d}\n",
            launches, allocations, memory.size(), modules, contexts[0].retained + contexts[1].retained);
    fclose(file);
  }
} report;

// The allocation that has `size` bytes from `address` on; null: none has.
Memory *holding(uintptr_t address, size_t size) {
  auto after = memory.upper_bound(address);
  if (after == memory.begin()) return nullptr;
  auto found = std::prev(after);
  return address + size <= found->first + found->second.size ? &found->second : nullptr;
}

Code ready() {
  if (!initialized) return NOT_INITIALIZED;
  if (broken) return broken;
  return current.empty() || !current.back() ? INVALID_CONTEXT : SUCCESS;
}

#define BEGIN                                        \
  std::lock_guard<std::recursive_mutex> alone(mutex); \
  if (Code code = ready()) return code

size_t elf_size(const char *image) {
  const Elf64_Ehdr *head = (const Elf64_Ehdr *)image;
  return head->e_shoff + (size_t)head->e_shentsize * head->e_shnum;
}
}  // namespace

CALL cuInit(unsigned flags) {
  if (flags) return INVALID_VALUE;
  initialized = true;
  return SUCCESS;
}
CALL cuDriverGetVersion(int *version) {
  *version = 12000;
  return SUCCESS;
}
CALL cuGetErrorString(Code code, const char **text) {
  auto found = WORDS.find(code);
  *text = found == WORDS.end() ? nullptr : found->second;
  return *text ? SUCCESS : INVALID_VALUE;
}
CALL cuDeviceGetCount(int *count) {
  *count = GPUS;
  return initialized ? SUCCESS : NOT_INITIALIZED;
}
CALL cuDeviceGet(int *device, int ordinal) {
  if (!initialized) return NOT_INITIALIZED;
  if (ordinal < 0 || ordinal >= GPUS) return INVALID_DEVICE;
  *device = ordinal;
  return SUCCESS;
}
CALL cuDeviceGetAttribute(int *value, int attribute, int device) {
  if (device < 0 || device >= GPUS) return INVALID_DEVICE;
  const char *given = getenv("GT_EMULATED_CAPABILITY");
  int major = 8, minor = 0;
  if (given) sscanf(given, "%d.%d", &major, &minor);
  if (attribute != 75 && attribute != 76) return INVALID_VALUE;
  *value = attribute == 75 ? major : minor;
  return SUCCESS;
}

// ---- contexts

CALL cuDevicePrimaryCtxRetain(Context **context, int device) {
  std::lock_guard<std::recursive_mutex> alone(mutex);
  if (device < 0 || device >= GPUS) return INVALID_DEVICE;
  *context = &contexts[device];
  contexts[device].retained++;
  return SUCCESS;
}
CALL cuDevicePrimaryCtxRelease_v2(int device) {
  std::lock_guard<std::recursive_mutex> alone(mutex);
  if (device < 0 || device >= GPUS) return INVALID_DEVICE;
  if (!contexts[device].retained) return INVALID_CONTEXT;
  contexts[device].retained--;
  return SUCCESS;
}
CALL cuCtxGetCurrent(Context **context) {
  if (!initialized) return NOT_INITIALIZED;
  *context = current.empty() ? nullptr : current.back();
  return SUCCESS;
}
CALL cuCtxSetCurrent(Context *context) {
  if (current.empty()) current.push_back(context);
  else current.back() = context;
  return SUCCESS;
}
CALL cuCtxPushCurrent_v2(Context *context) {
  if (!context || !context->retained) return INVALID_CONTEXT;
  current.push_back(context);
  return SUCCESS;
}
CALL cuCtxPopCurrent_v2(Context **context) {
  if (current.empty()) return INVALID_CONTEXT;
  if (context) *context = current.back();
  current.pop_back();
  return SUCCESS;
}
CALL cuCtxGetDevice(int *device) {
  if (current.empty() || !current.back()) return INVALID_CONTEXT;
  *device = current.back()->device;
  return SUCCESS;
}

// ---- memory

CALL cuMemAlloc_v2(uintptr_t *address, size_t size) {
  BEGIN;
  if (!size) return INVALID_VALUE;
  Context *context = current.back();
  if (context->held + size > number("GT_EMULATED_MEMORY", (size_t)1 << 30)) return OUT_OF_MEMORY;
  char *made = (char *)aligned_alloc(256, (size + 255) / 256 * 256);
  memset(made, 0xff, size);  // NaN: what was never written shows
  allocations++;
  context->held += size;
  *address = (uintptr_t)made;
  memory[*address] = {size, context};
  return SUCCESS;
}
CALL cuMemFree_v2(uintptr_t address) {
  BEGIN;
  auto found = memory.find(address);
  if (found == memory.end()) return INVALID_VALUE;
  found->second.context->held -= found->second.size;
  memory.erase(found);
  free((void *)address);
  return SUCCESS;
}
CALL cuMemcpyHtoD_v2(uintptr_t to, const void *from, size_t size) {
  BEGIN;
  if (!holding(to, size)) return INVALID_VALUE;
  memcpy((void *)to, from, size);
  return SUCCESS;
}
CALL cuMemcpyDtoH_v2(void *to, uintptr_t from, size_t size) {
  BEGIN;
  if (!holding(from, size)) return INVALID_VALUE;
  memcpy(to, (const void *)from, size);
  return SUCCESS;
}
CALL cuMemsetD8_v2(uintptr_t address, unsigned char value, size_t size) {
  BEGIN;
  if (!holding(address, size)) return INVALID_VALUE;
  memset((void *)address, value, size);
  return SUCCESS;
}

// ---- code

CALL cuModuleLoadData(Module **module, const char *image) {
  BEGIN;
  const Elf64_Ehdr *head = (const Elf64_Ehdr *)image;
  if (memcmp(image, ELFMAG, SELFMAG) || (head->e_machine != EM_X86_64 && head->e_machine != EM_AARCH64)) {
    fprintf(stderr, "the emulated driver was given %s\n", memcmp(image, ELFMAG, SELFMAG) ? "PTX" : "a cubin");
    return NO_BINARY_FOR_GPU;
  }
  std::string path = "/tmp/graphtorch-module-XXXXXX";
  if (const char *folder = getenv("TMPDIR")) path = std::string(folder) + "/graphtorch-module-XXXXXX";
  int file = mkstemp(&path[0]);
  if (file < 0) return INVALID_IMAGE;
  size_t size = elf_size(image);
  bool whole = write(file, image, size) == (ssize_t)size;
  close(file);
  void *library = whole ? dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
  unlink(path.c_str());
  if (!library) return INVALID_IMAGE;
  modules++;
  *module = new Module{library};
  return SUCCESS;
}
CALL cuModuleUnload(Module *module) {
  BEGIN;
  dlclose(module->library);
  delete module;
  modules--;
  return SUCCESS;
}
CALL cuModuleGetFunction(Function **function, Module *module, const char *name) {
  BEGIN;
  void *found = dlsym(module->library, (std::string(name) + "_emulated").c_str());
  if (!found) return NOT_FOUND;
  *function = new Function{(Emulated *)found, (Ranges *)dlsym(module->library, "gt_ranges"), 48 << 10};
  return SUCCESS;
}
CALL cuFuncSetAttribute(Function *function, int attribute, int value) {
  BEGIN;
  if (attribute != 8 || value > 227 << 10) return INVALID_VALUE;
  function->shared = (size_t)value;
  return SUCCESS;
}
CALL cuLaunchKernel(Function *function, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y,
                    unsigned threads_z, unsigned shared, void *stream, void **arguments, void **more) {
  BEGIN;
  if (!function || !x || !y || !z || !threads_x || shared > function->shared || more || stream) return INVALID_VALUE;
  launches++;
  const unsigned grid[] = {x, y, z}, block[] = {threads_x, threads_y, threads_z};
  std::vector<const char *> from;
  std::vector<size_t> sizes;
  for (auto &m : memory) from.push_back((const char *)m.first), sizes.push_back(m.second.size);
  if (from.size() > 64) {  // as many as the emulator keeps: one stretch then
    sizes = {(size_t)(from.back() + sizes.back() - from.front())};
    from.resize(1);
  }
  function->ranges((unsigned)from.size(), from.data(), sizes.data());
  if (const char *wrong = function->call(arguments, grid, block, shared, 0)) {
    fprintf(stderr, "%s\n", wrong);
    return broken = ILLEGAL_ADDRESS;
  }
  return SUCCESS;
}
CALL cuStreamSynchronize(void *stream) {
  BEGIN;
  return stream ? INVALID_VALUE : SUCCESS;
}
