// CUDA C on a CPU: one fiber for each thread of a block, one block after the other.
//
// A thread runs until a barrier, or an operation of its warp, needs the others; a kernel without any is a plain
// loop over threads on one stack. What is reported, with kernel and line: accesses outside of what a kernel
// was given (temporaries lie in one arena, and are told from what follows them there by nothing), threads of a
// block that wait at different barriers or have left while others wait, lanes that a warp operation waits for in
// vain, and elements of shared memory that one thread writes and another reads or writes with no barrier between
// the two: those that the text marks (GT_GOT, GT_PUT), and with GT_WATCHED every byte by whatever way. Shared memory is filled with NaN before each block, so that what was
// never written, or not yet, shows in results; `order` lets threads run in other orders, so that what one may
// not rely on shows as well.

#define GT_EMULATED 1
#define GT_UNWATCHED __attribute__((no_sanitize("thread")))
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define __global__ __attribute__((visibility("hidden")))
#define __device__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static __attribute__((section("gt_shared")))
#define GT_SHARED(type, name, size, align) __shared__ __align__(align) type name[size]
#define GT_DYNAMIC(type, name, offset) type* name = (type*)(gt::dynamic_shared + offset)
#define GT_FUNCTION static inline
#define GT_AT(pointer, index) (*gt::inside(&(pointer)[index], false, __LINE__))
#define GT_TO(pointer, index) (*gt::inside(&(pointer)[index], true, __LINE__))
#define GT_SHARE(pointer, index) gt::inside(&(pointer)[index], gt::ADDED, __LINE__)
#define GT_IN(array, size, index) (array)[gt::below(index, size, __LINE__)]
#define GT_AT_MANY(pointer, index, count) gt::inside(&(pointer)[index], false, __LINE__, count)
#define GT_TO_MANY(pointer, index, count) gt::inside(&(pointer)[index], true, __LINE__, count)
#define GT_IN_MANY(array, size, index, count) gt::below_many(array, index, size, count, __LINE__)
#define GT_GOT_MANY(array, size, index, count) \
  gt::touched_many(gt::below_many(array, index, size, count, __LINE__), count, false, __LINE__)
#define GT_PUT_MANY(array, size, index, count) \
  gt::touched_many(gt::below_many(array, index, size, count, __LINE__), count, true, __LINE__)
#define GT_GOT(array, size, index) (*gt::touched(&GT_IN(array, size, index), false, __LINE__))
#define GT_PUT(array, size, index) (*gt::touched(&GT_IN(array, size, index), true, __LINE__))

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };

extern "C" {
extern char __start_gt_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_gt_shared[] __attribute__((weak, visibility("hidden")));
void gt_switch(void **save, void *to) __attribute__((visibility("hidden")));
}

namespace gt {

enum State { READY, AT_BARRIER, AT_WARP, DONE };
const unsigned MOST = 1024, LANES = 32;
const size_t STACK = 1 << 20;  // of each fiber; untouched pages cost nothing

struct Fiber {
  void *stack;
  uint3 index;
  unsigned number, site, mask;
  State state;
};
struct Warp { uint64_t slot[LANES]; };

static Fiber fibers[MOST];
static Warp warps[MOST / LANES];
static Fiber *current;
static void *scheduler;
static char *stacks;
static unsigned threads, sequence[MOST];
static uint3 block_index;
static dim3 block_size, grid_size;
static void (*entry)(void **);
static void **arguments;
static char *dynamic_shared;
static const char *kernel_name = "";
static char message[512];

// ---- memory

struct Range { const char *from, *to; };
static Range ranges[64];
static unsigned range_count;
static uint64_t nowhere[8];  // what a wrong access reads and writes

static void report(const char *what, int line) {
  if (message[0]) return;
  snprintf(message, sizeof message, "kernel %s, line %d: %s (block %u, thread %u)", kernel_name, line, what,
           block_index.x, current ? current->number : 0);
}

static inline bool in_a_stack(const char *p) { return p >= stacks && p < stacks + MOST * STACK; }

static size_t dynamic_size;
GT_UNWATCHED static inline bool is_shared(const char *p) {
  return (p >= __start_gt_shared && p < __stop_gt_shared) || (p >= dynamic_shared && p < dynamic_shared + dynamic_size);
}

// ---- a trace of accesses, for who asks for one: traces.py says what is read from it

struct Access {
  const char *at;
  unsigned line, block, phase;
  unsigned short thread;
  unsigned char size, kind;  // 1: a store, 2: to shared memory, 4: at once
};
const unsigned ADDED = 5;  // what other threads may add to at the same time
static Access *trace;
static size_t traced, most_traced, barriers;
static unsigned phase;  // phases begin at barriers and with blocks

static inline void note(const void *p, size_t size, unsigned write, bool shared, int line) {
  if (!trace) return;
  if (traced < most_traced)
    trace[traced] = {(const char *)p, (unsigned)line, block_index.x, phase, (unsigned short)current->number,
                     (unsigned char)size, (unsigned char)(write + 2 * shared)};
  traced++;
}

const size_t WIDEST = 16;  // bytes of one access
static inline void note_all(const char *at, size_t size, unsigned write, bool shared, int line) {
  for (size_t i = 0; i < size; i += WIDEST) note(at + i, size - i < WIDEST ? size - i : WIDEST, write, shared, line);
}

template <class T> static inline T *inside(T *p, unsigned write, int line, int count = 1) {
  const char *at = (const char *)p;
  if (!in_a_stack(at)) note_all(at, count * sizeof(T), write, is_shared(at), line);
  for (unsigned i = 0; i < range_count; i++)
    if (at >= ranges[i].from && at + count * sizeof(T) <= ranges[i].to) return p;
  if (in_a_stack(at) || is_shared(at)) return p;
  report("an access outside of the kernel's buffers", line);
  return (T *)nowhere;
}
static inline int64_t below(int64_t i, int64_t size, int line) {
  if (i >= 0 && i < size) return i;
  report("an index outside of a thread's or a block's memory", line);
  return 0;
}
template <class T> static inline T *below_many(T *p, int64_t i, int64_t size, int count, int line) {
  below(i + count - 1, size, line);
  return p + below(i, size, line);
}

// ---- shared memory: who touched each element since the last barrier

struct Touch {
  unsigned written, read;  // the phase in which it was
  unsigned short writer, reader;
  bool readers;  // several
};
static Touch *touches;
static size_t touch_count;

static Touch &touch_of(const char *p) {
  size_t fixed = __start_gt_shared ? __stop_gt_shared - __start_gt_shared : 0;
  if (touch_count < fixed + dynamic_size) {
    touches = (Touch *)realloc(touches, (fixed + dynamic_size) * sizeof(Touch));
    memset(touches + touch_count, 0, (fixed + dynamic_size - touch_count) * sizeof(Touch));
    touch_count = fixed + dynamic_size;
  }
  bool dynamic = p >= dynamic_shared && p < dynamic_shared + dynamic_size;
  return touches[dynamic ? fixed + (p - dynamic_shared) : p - __start_gt_shared];
}
template <class T> static inline T *touched(T *p, bool write, int line, bool noted = false) {
  if (!noted) note(p, sizeof(T), write, true, line);
  Touch &t = touch_of((const char *)p);
  unsigned short me = (unsigned short)current->number;
  if (t.written == phase && t.writer != me)
    report(write ? "two threads write to an element of shared memory with no barrier between"
                 : "a thread reads shared memory that another has written with no barrier between", line);
  if (write) {
    if (t.read == phase && (t.readers || t.reader != me))
      report("a thread writes to shared memory that another has read with no barrier between", line);
    t.written = phase;
    t.writer = me;
  } else {
    t.readers = t.read == phase && (t.readers || t.reader != me);
    t.read = phase;
    t.reader = me;
  }
  return p;
}

template <class T> static inline T *touched_many(T *p, int count, bool write, int line) {
  note_all((const char *)p, count * sizeof(T), write, true, line);
  for (int i = 0; i < count; i++) touched(p + i, write, line, true);
  return p;
}

// ---- every access, with GT_WATCHED: the compiler, which is told to look for races, calls these before each. Accesses
// of this file's functions are told from those of kernels by where they go.

#ifdef GT_WATCHED
extern "C" char __ehdr_start[] __attribute__((visibility("hidden")));
static size_t wrong_place;  // in this library, of the instruction behind a reported access; 0 where its line is known

static void look(const char *p, size_t size, bool write, void *from) {
  bool before = message[0];
  for (size_t i = 0; i < size; i++) touched(p + i, write, 0, true);
  if (!before && message[0]) wrong_place = (char *)from - __ehdr_start;
}
GT_UNWATCHED static inline void watch(void *p, size_t size, bool write, void *from) {
  if (current && is_shared((const char *)p)) look((const char *)p, size, write, from);
}
#define GT_WATCH(name, size, write) \
  GT_UNWATCHED void __tsan_##name(void *p) { gt::watch(p, size, write, __builtin_return_address(0)); }
#define GT_WATCH_BOTH(size) GT_WATCH(read##size, size, false) GT_WATCH(write##size, size, true)
#define GT_WATCH_SPREAD(size) GT_WATCH(unaligned_read##size, size, false) GT_WATCH(unaligned_write##size, size, true)
#define GT_WATCH_RANGE(name, write) \
  GT_UNWATCHED void __tsan_##name(void *p, size_t n) { gt::watch(p, n, write, __builtin_return_address(0)); }
extern "C" {
#pragma GCC visibility push(hidden)
GT_WATCH_BOTH(1) GT_WATCH_BOTH(2) GT_WATCH_BOTH(4) GT_WATCH_BOTH(8) GT_WATCH_BOTH(16)
GT_WATCH_SPREAD(2) GT_WATCH_SPREAD(4) GT_WATCH_SPREAD(8) GT_WATCH_SPREAD(16)
GT_WATCH_RANGE(read_range, false) GT_WATCH_RANGE(write_range, true)
GT_UNWATCHED void __tsan_init() {}
GT_UNWATCHED void __tsan_func_entry(void *) {}
GT_UNWATCHED void __tsan_func_exit() {}
#pragma GCC visibility pop
__attribute__((visibility("default"))) size_t gt_wrong_place() { return gt::wrong_place; }
}
#endif

// ---- copies to shared memory that a thread has begun: done when it waits for them, and no sooner

struct Begun {
  void *to;
  const void *from;  // null: zeros
  unsigned group, line;
  void (*finish)(const Begun &);
};
const unsigned MOST_BEGUN = 128;
static Begun begun[MOST][MOST_BEGUN];
static unsigned begun_count[MOST], groups[MOST];

template <class T, int count> static void finish(const Begun &c) {
  T *to = touched_many((T *)c.to, count, true, (int)c.line);
  if (c.from) memcpy(to, c.from, count * sizeof(T));
  else memset(to, 0, count * sizeof(T));
}
template <int count, class T> static void begin(T *to, const T *from, unsigned line) {
  unsigned me = current->number;
  if (begun_count[me] == MOST_BEGUN) return report("more copies on their way than are emulated", (int)line);
  begun[me][begun_count[me]++] = {to, from, groups[me], line, finish<T, count>};
}
static void end_copies(unsigned open) {
  unsigned me = current->number, kept = 0;
  groups[me]++;
  for (unsigned i = 0; i < begun_count[me]; i++)
    if (begun[me][i].group + open < groups[me]) begun[me][i].finish(begun[me][i]);
    else begun[me][kept++] = begun[me][i];
  begun_count[me] = kept;
}

// ---- products of tiles that a thread has begun: done when it waits for them, and no sooner

struct Product {
  float *sums;
  const void *a, *b;
  unsigned group, line;
  void (*finish)(const Product &, unsigned site);
};
const unsigned MOST_PRODUCTS = 8;
static Product products[MOST][MOST_PRODUCTS];
static unsigned product_count[MOST], product_groups[MOST];

static void multiply(float *sums, const void *a, const void *b, unsigned line,
                     void (*finish)(const Product &, unsigned)) {
  unsigned me = current->number;
  if (product_count[me] == MOST_PRODUCTS) return report("more products of tiles begun than are emulated", (int)line);
  products[me][product_count[me]++] = {sums, a, b, product_groups[me]++, line, finish};
}
static void settle(unsigned open, unsigned site) {
  unsigned me = current->number, kept = 0;
  for (unsigned i = 0; i < product_count[me]; i++)
    if (products[me][i].group + open < product_groups[me]) products[me][i].finish(products[me][i], site);
    else products[me][kept++] = products[me][i];
  product_count[me] = kept;
}

// ---- fibers

asm(".text\n.globl gt_switch\n.hidden gt_switch\n.type gt_switch,@function\n"
    "gt_switch:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp,(%rdi)\n mov %rsi,%rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n"
    ".size gt_switch,.-gt_switch\n");

static void run_threads() {  // a fiber whose thread is done may take the next one's place
  for (;;) {
    entry(arguments);
    if (begun_count[current->number])
      report("a thread leaves while its copies are on their way", (int)begun[current->number][0].line);
    if (product_count[current->number])
      report("a thread leaves while products of tiles are not done", (int)products[current->number][0].line);
    current->state = DONE;
    gt_switch(&current->stack, scheduler);
  }
}
static void prepare(Fiber &fiber, unsigned i) {  // stack tops at different sets of the cache
  void **top = (void **)(stacks + (size_t)(i + 1) * STACK - 64 - (i * 7 % 61) * 64);
  *--top = nullptr;
  *--top = (void *)run_threads;
  for (int k = 0; k < 6; k++) *--top = nullptr;
  fiber.stack = top;
}
static inline void wait(State state, unsigned site, unsigned mask) {
  current->site = site;
  current->mask = mask;
  current->state = state;
  Fiber *self = current;
  gt_switch(&self->stack, scheduler);
}
__attribute__((noinline)) static void barrier(unsigned site) { wait(AT_BARRIER, site, 0); }
__attribute__((noinline)) static void meet(unsigned mask, unsigned site) { wait(AT_WARP, site, mask); }

static bool fail(const char *what, unsigned line) {
  current = nullptr;
  report(what, (int)line);
  return false;
}

// Lets the lanes of a warp go on that all wait in one operation; false where some never will.
static bool release_warp(unsigned low, unsigned high, bool &again) {
  unsigned live = 0, seen = 0, full = high - low == LANES ? ~0u : (1u << (high - low)) - 1;
  for (unsigned i = low; i < high; i++)
    if (fibers[i].state != DONE) live |= 1u << (i - low);
  for (unsigned k = low; k < high; k++) {
    if (fibers[k].state != AT_WARP || seen >> (k - low) & 1) continue;
    unsigned group = 0, mask = fibers[k].mask;
    for (unsigned i = low; i < high; i++)
      if (fibers[i].state == AT_WARP && fibers[i].site == fibers[k].site && fibers[i].mask == mask)
        group |= 1u << (i - low);
    seen |= group;
    if (mask & full & ~live) return fail("a warp operation waits for a lane that has left", fibers[k].site / 4);
    if (group & ~mask) return fail("a lane outside of its mask takes part in a warp operation", fibers[k].site / 4);
    if (group != (mask & full)) continue;
    for (unsigned i = low; i < high; i++)
      if (group >> (i - low) & 1) fibers[i].state = READY;
    again = true;
  }
  return true;
}

static bool run_block(int order) {
  unsigned done = 0, spare = MOST, warp_count = (threads + LANES - 1) / LANES;
  for (unsigned i = 0; i < threads; i++) fibers[i].state = READY, fibers[i].stack = nullptr, begun_count[i] = product_count[i] = 0;
  phase++;
  while (done < threads) {
    bool progress = false;
    for (unsigned w = 0; w < warp_count; w++) {
      unsigned warp = order == 1 ? warp_count - 1 - w : order == 2 ? (w + warp_count / 2) % warp_count : w;
      unsigned low = warp * LANES, high = low + LANES < threads ? low + LANES : threads;
      for (bool again = true; again;) {
        again = false;
        for (unsigned lane = low; lane < high; lane++) {
          unsigned i = order == 1 ? low + high - 1 - lane : order == 2 ? sequence[lane] : lane;
          Fiber &fiber = fibers[i];
          if (fiber.state != READY) continue;
          progress = true;
          if (!fiber.stack) {
            if (spare != MOST) {
              fiber.stack = fibers[spare].stack;
              spare = MOST;
            } else {
              prepare(fiber, i);
            }
          }
          current = &fiber;
          gt_switch(&scheduler, fiber.stack);
          if (fiber.state == DONE) {
            done++;
            if (spare == MOST) spare = i;
          }
        }
        if (!release_warp(low, high, again)) return false;
      }
    }
    if (done == threads) break;
    unsigned waiting = 0, site = 0;
    bool same = true;
    for (unsigned i = 0; i < threads; i++)
      if (fibers[i].state == AT_BARRIER) {
        waiting++;
        if (!site) site = fibers[i].site;
        same = same && site == fibers[i].site;
      }
    if (waiting == threads - done) {
      if (!same) return fail("threads of a block wait at different barriers", site / 4);
      if (done) return fail("a barrier after some threads of the block have left", site / 4);
      for (unsigned i = 0; i < threads; i++) fibers[i].state = READY;
      phase++;
      barriers++;
    } else if (!progress) {
      return fail("a barrier that not all threads of the block reach", site / 4);
    }
  }
  return true;
}

static const char *launch(const char *name, void (*kernel)(void **), void **given, const unsigned *grid,
                          const unsigned *block, size_t shared, int order) {
  if (!stacks)
    stacks = (char *)mmap(nullptr, MOST * STACK, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  entry = kernel;
  arguments = given;
  kernel_name = name;
  message[0] = 0;
#ifdef GT_WATCHED
  wrong_place = 0;
#endif
  grid_size = {grid[0], grid[1], grid[2]};
  block_size = {block[0], block[1], block[2]};
  threads = block[0] * block[1] * block[2];
  if (threads > MOST) return "a block of more than 1024 threads";
  unsigned random = 12345;
  for (unsigned i = 0; i < threads; i++) {
    sequence[i] = i;
    fibers[i].number = i;
    fibers[i].index = {i % block[0], i / block[0] % block[1], i / (block[0] * block[1])};
  }
  for (unsigned w = 0; w < threads; w += LANES)
    for (unsigned n = threads - w < LANES ? threads - w : LANES, k = n - 1; k > 0 && k < n; k--) {
      random = random * 1664525u + 1013904223u;
      unsigned j = (random >> 8) % (k + 1), t = sequence[w + k];
      sequence[w + k] = sequence[w + j];
      sequence[w + j] = t;
    }
  dynamic_size = shared;
  dynamic_shared = (char *)aligned_alloc(1024, (shared + 1023) / 1024 * 1024 + 1024);
  unsigned long blocks = (unsigned long)grid[0] * grid[1] * grid[2];
  for (unsigned long n = 0; n < blocks && !message[0]; n++) {
    unsigned long b = order ? blocks - 1 - n : n;
    block_index = {(unsigned)(b % grid[0]), (unsigned)(b / grid[0] % grid[1]),
                   (unsigned)(b / ((unsigned long)grid[0] * grid[1]))};
    memset(dynamic_shared, 0xff, shared);
    if (__start_gt_shared) memset(__start_gt_shared, 0xff, __stop_gt_shared - __start_gt_shared);
    if (!run_block(order)) break;
  }
  free(dynamic_shared);
  current = nullptr;
  return message[0] ? message : nullptr;
}

// A kernel's function on pointers to its arguments.
template <auto K> struct Unpacked;
template <class... A, void (*K)(A...)> struct Unpacked<K> {
  template <int... I> struct Sequence {};
  template <int n, int... I> struct Make : Make<n - 1, n - 1, I...> {};
  template <int... I> struct Make<0, I...> { typedef Sequence<I...> type; };
  template <int... I> static void call(void **p, Sequence<I...>) { K(*(A *)p[I]...); }
  static void run(void **p) { call(p, typename Make<sizeof...(A)>::type{}); }
};

}  // namespace gt

#define threadIdx (gt::current->index)
#define blockIdx (gt::block_index)
#define blockDim (gt::block_size)
#define gridDim (gt::grid_size)
#define GT_EXPORT(kernel)                                                                                       \
  extern "C" __attribute__((visibility("default"))) const char *kernel##_emulated(                              \
      void **arguments, const unsigned *grid, const unsigned *block, size_t shared, int order) {                \
    return gt::launch(#kernel, &gt::Unpacked<&kernel>::run, arguments, grid, block, shared, order);             \
  }
extern "C" __attribute__((visibility("default"))) void gt_ranges(unsigned count, const char **from, const size_t *size) {
  gt::range_count = count < 64 ? count : 64;
  for (unsigned i = 0; i < gt::range_count; i++) gt::ranges[i] = {from[i], from[i] + size[i]};
}

extern "C" __attribute__((visibility("default"))) size_t gt_trace(gt::Access *trace, size_t most) {
  size_t before = gt::traced;
  gt::trace = trace;
  gt::most_traced = most;
  gt::traced = gt::barriers = 0;
  return before;
}
extern "C" __attribute__((visibility("default"))) size_t gt_barriers() { return gt::barriers; }

// ---- barriers and warps. A site tells the operations of one line apart.
#define GT_SITE (4 * __LINE__ + 2 * (__COUNTER__ & 1))
#define GT_LINE __LINE__
#define __syncthreads() gt::barrier(GT_SITE)
#define __syncwarp() gt::meet(~0u, GT_SITE)
static inline void __threadfence() {}
static inline void __threadfence_block() {}
template <class T> static T gt_exchange(unsigned site, unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) <= 8, "a lane hands over 8 bytes at most");
  gt::Warp &warp = gt::warps[gt::current->number / gt::LANES];
  memcpy(&warp.slot[gt::current->number % gt::LANES], &value, sizeof value);
  gt::meet(mask, site);
  T found;
  memcpy(&found, &warp.slot[source % gt::LANES], sizeof found);
  gt::meet(mask, site + 1);
  return found;
}
template <class T> static void gt_all_lanes(unsigned site, T *mine, T *(&all)[gt::LANES]) {  // a pointer of each
  uint64_t *slots = gt::warps[gt::current->number / gt::LANES].slot;
  slots[gt::current->number % gt::LANES] = (uint64_t)mine;
  gt::meet(~0u, site);
  for (unsigned i = 0; i < gt::LANES; i++) all[i] = (T *)slots[i];
}
template <class T> static T gt_shuffle_xor(unsigned site, unsigned mask, T value, unsigned distance) {
  return gt_exchange(site, mask, value, gt::current->number % gt::LANES ^ distance);
}
template <class T> static T gt_shuffle_down(unsigned site, unsigned mask, T value, unsigned distance) {
  unsigned lane = gt::current->number % gt::LANES;
  return gt_exchange(site, mask, value, lane + distance < gt::LANES ? lane + distance : lane);
}
template <class T> static T gt_shuffle(unsigned site, unsigned mask, T value, unsigned source) {
  return gt_exchange(site, mask, value, source);
}
#define __shfl_xor_sync(...) gt_shuffle_xor(GT_SITE, __VA_ARGS__)
#define __shfl_down_sync(...) gt_shuffle_down(GT_SITE, __VA_ARGS__)
#define __shfl_sync(...) gt_shuffle(GT_SITE, __VA_ARGS__)
