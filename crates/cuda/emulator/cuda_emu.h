// CUDA C++ on one CPU thread. Every CUDA thread of a block is a fiber; __syncthreads, warp shuffles, ldmatrix and mma
// are meeting points. What the emulator makes visible:
//   * shared memory is NaN or large before each block, so a read of what was not written is noticed;
//   * a cp.async lands only at its wait, so a missing wait reads NaN;
//   * fibers run in an order that a seed chooses, so a missing barrier changes results;
//   * a barrier that not all threads reach is an error;
//   * addresses that have to be aligned are checked.
// What it cannot show: weak memory order, races inside one phase between two barriers that no order of whole phases
// reveals, bank conflicts, and speed.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__) || !defined(__x86_64__)
#define EMU_UCONTEXT 1
#include <ucontext.h>
#endif

#define EMULATED 1
#define __align__(n) alignas(n)
#define DEV static inline
// Only inside of a KERNEL: a static variable of a template cannot lie in a section that others share.
#define __shared__ static __attribute__((section("emu_shared")))

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
extern char __start_emu_shared[] __attribute__((weak)), __stop_emu_shared[] __attribute__((weak));

struct uint3_emu { unsigned x, y, z; };

namespace emu {

// A fiber's saved state. Switching with ucontext makes a system call; the switch in assembly takes nanoseconds.
#ifdef EMU_UCONTEXT
struct Context { ucontext_t at; };
inline void switch_to(Context& from, Context& to) { swapcontext(&from.at, &to.at); }
inline void prepare(Context& c, char* stack, size_t size, void (*entry)()) {
  getcontext(&c.at);
  c.at.uc_stack.ss_sp = stack;
  c.at.uc_stack.ss_size = size;
  c.at.uc_link = nullptr;
  makecontext(&c.at, entry, 0);
}
const size_t STACK = 256 << 10;
#else
struct Context { void* at; };
// System V: rbx, rbp, r12 to r15 belong to the caller; everything else may change over a call.
__attribute__((naked, noinline)) static void switch_stacks(void** from, void* to) {
  __asm__ volatile(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}
inline void switch_to(Context& from, Context& to) { switch_stacks(&from.at, to.at); }
inline void prepare(Context& c, char* stack, size_t size, void (*entry)()) {
  // The top of the stack: `entry` as the address to return to, below it six registers. At the entry of a function the
  // stack pointer plus 8 is a multiple of 16.
  void** top = (void**)(((uintptr_t)stack + size) & ~(uintptr_t)15);
  *--top = nullptr;
  *--top = (void*)entry;
  for (int i = 0; i < 6; i++) *--top = nullptr;
  c.at = top;
}
const size_t STACK = 64 << 10;
#endif

struct Meeting { unsigned need = 0, here = 0; u64 turn = 0; };
struct Copy { void* to; const void* from; unsigned bytes; };
struct Fiber {
  Context context;
  char* stack = nullptr;
  uint3_emu thread;
  int number;
  bool done;
  const Meeting* waits;  // if any, it is not run before the meeting's turn is over
  u64 turn;
  std::vector<std::vector<Copy>> groups;  // cp.async: committed groups, and the open one
  std::vector<Copy> open;
};
struct Warp { Meeting meeting; u64 slot[32]; u32 fragment[32][8]; const void* rows[32]; };

static Context scheduler;
static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static Meeting block;
static Fiber* current;
static u64 progress;
static uint3_emu block_index, grid_dim, block_dim;
static std::vector<char> dynamic_shared;
static const std::function<void()>* body;
static std::string problem;

DEV Warp& warp() { return warps[current->number / 32]; }
DEV int lane() { return current->number % 32; }

DEV void meet(Meeting& m) {
  progress++;
  if (++m.here == m.need) {
    m.here = 0;
    m.turn++;
    return;
  }
  current->waits = &m;
  current->turn = m.turn;
  switch_to(current->context, scheduler);
}

// A thread that returns no longer takes part in meetings, as on the GPU.
DEV void leave(Meeting& m) {
  if (--m.need > 0 && m.here == m.need) {
    m.here = 0;
    m.turn++;
  }
}

static void entry() {
  (*body)();
  current->done = true;
  progress++;
  leave(warp().meeting);
  leave(block);
  Context gone;
  switch_to(gone, scheduler);
}

// An error that the kernel made, to be reported when the block ends.
DEV void fail(const char* what) {
  if (problem.empty()) problem = what;
}

static bool run_block(unsigned seed, std::mt19937& random) {
  unsigned n = block_dim.x * block_dim.y * block_dim.z;
  // NaN; and in one order a large number, because a maximum ignores NaN.
  int poison = seed == 1 ? 0x7f : 0xff;
  if (__start_emu_shared) memset(__start_emu_shared, poison, __stop_emu_shared - __start_emu_shared);
  std::fill(dynamic_shared.begin(), dynamic_shared.end(), (char)poison);
  if (fibers.size() < n) fibers.resize(n);
  warps.assign((n + 31) / 32, Warp());
  block = Meeting();
  block.need = n;
  for (unsigned i = 0; i < n; i++) {
    Fiber& f = fibers[i];
    f.done = false;
    f.waits = nullptr;
    f.number = (int)i;
    f.groups.clear();
    f.open.clear();
    if (!f.stack) f.stack = (char*)malloc(STACK);
    f.thread = {i % block_dim.x, i / block_dim.x % block_dim.y, i / block_dim.x / block_dim.y};
    warps[i / 32].meeting.need++;
    prepare(f.context, f.stack, STACK, entry);
  }
  static std::vector<int> order;
  order.resize(n);
  for (unsigned i = 0; i < n; i++) order[i] = seed == 1 ? (int)(n - 1 - i) : (int)i;
  // Gives a turn to each of the threads `order[begin..end]` that does not wait; false if there is none.
  auto turn = [](unsigned begin, unsigned end) {
    bool ran = false;
    for (unsigned at = begin; at < end; at++) {
      Fiber& f = fibers[order[at]];
      if (f.done || (f.waits && f.waits->turn == f.turn)) continue;
      f.waits = nullptr;
      current = &f;
      ran = true;
      switch_to(scheduler, f.context);
    }
    return ran;
  };
  for (;;) {
    u64 before = progress;
    if (seed > 1) {
      std::shuffle(order.begin(), order.end(), random);
      turn(0, n);
    } else {
      for (unsigned begin = 0, end; begin < n; begin = end) {
        for (end = begin + 1; end < n && order[end] / 32 == order[begin] / 32;) end++;
        while (turn(begin, end)) {}
      }
    }
    bool all = true;
    for (unsigned i = 0; i < n; i++) all = all && fibers[i].done;
    if (all) return problem.empty();
    if (progress == before) {
      fail("a barrier that not all threads reach");
      return false;
    }
  }
}

// Orders of threads: 0 ascending and 1 descending, a warp as far as the next barrier of the block before the next warp;
// others shuffled anew in every round, in which each thread goes as far as the next barrier of its warp or block.
static bool launch(const unsigned* grid, const unsigned* threads, size_t shared, unsigned seed,
                   const std::function<void()>& run) {
  grid_dim = {grid[0], grid[1], grid[2]};
  block_dim = {threads[0], threads[1], threads[2]};
  dynamic_shared.assign(shared, 0);
  body = &run;
  problem.clear();
  std::mt19937 random(seed);
  // Blocks run in no order that a kernel may rely on.
  u64 blocks = (u64)grid[0] * grid[1] * grid[2];
  for (u64 i = 0; i < blocks; i++) {
    u64 b = seed == 1 ? blocks - 1 - i : i;
    block_index = {(unsigned)(b % grid[0]), (unsigned)(b / grid[0] % grid[1]), (unsigned)(b / grid[0] / grid[1])};
    if (!run_block(seed, random)) return false;
  }
  return true;
}

// Kernels by name, with the sizes of their parameters.
struct Kernel { std::vector<size_t> sizes; std::function<void(void**)> call; };
static std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}
template <class... A, size_t... I>
static void call(void (*f)(A...), void** a, std::index_sequence<I...>) { f(*(std::decay_t<A>*)a[I]...); }
// Mutants are variants 0 and up of kernels whose originals are variant -1; the environment chooses one.
static std::string variant_of(const char* name, int variant) {
  return variant < 0 ? name : name + ("#" + std::to_string(variant));
}
struct Register {
  template <class... A>
  Register(const char* name, void (*f)(A...), int variant) {
    kernels()[variant_of(name, variant)] = {{sizeof(A)...}, [f](void** a) { call(f, a, std::index_sequence_for<A...>()); }};
  }
};

static const Kernel* find_kernel(const char* name) {
  static const char* chosen = getenv("TOKENFORMER_EMULATED_VARIANT");
  auto found = kernels().end();
  if (chosen) found = kernels().find(variant_of(name, atoi(chosen)));
  if (found == kernels().end()) found = kernels().find(name);
  return found == kernels().end() ? nullptr : &found->second;
}

// Dynamic shared memory begins at a multiple of 128 bytes; its end is the end of the allocation, so that a sanitizer
// sees what is beyond.
DEV void* shared_memory() { return dynamic_shared.data(); }

}  // namespace emu

#define EMULATED_VARIANT -1
#define KERNEL(name, params)                       \
  static void name params;                         \
  static emu::Register register_##name(#name, name, EMULATED_VARIANT); \
  static void name params
#define KERNEL_BOUNDED(name, threads, blocks, params) KERNEL(name, params)
#define DYN_SHARED(type, name) type* name = (type*)emu::shared_memory()
#define threadIdx (emu::current->thread)
#define blockIdx (emu::block_index)
#define blockDim (emu::block_dim)
#define gridDim (emu::grid_dim)

DEV void __syncthreads() { emu::meet(emu::block); }
DEV void __syncwarp(u32 = 0xffffffffu) { emu::meet(emu::warp().meeting); }
template <class T> static T __shfl_sync(u32, T v, int from) {
  static_assert(sizeof(T) <= 8, "a shuffle moves up to 8 bytes");
  emu::Warp& w = emu::warp();
  memcpy(&w.slot[emu::lane()], &v, sizeof v);
  __syncwarp();
  memcpy(&v, &w.slot[from & 31], sizeof v);
  __syncwarp();
  return v;
}
template <class T> static T __shfl_xor_sync(u32 m, T v, int o) { return __shfl_sync(m, v, emu::lane() ^ o); }
template <class T> static T __shfl_down_sync(u32 m, T v, int o) {
  int l = emu::lane();
  return __shfl_sync(m, v, l + o < 32 ? l + o : l);
}
DEV u32 __ballot_sync(u32, int yes) {
  emu::Warp& w = emu::warp();
  w.slot[emu::lane()] = yes != 0;
  __syncwarp();
  u32 all = 0;
  for (int i = 0; i < 32; i++) all |= (u32)w.slot[i] << i;
  __syncwarp();
  return all;
}
DEV int __ffs(u32 x) { return x ? __builtin_ctz(x) + 1 : 0; }
DEV float __uint_as_float(u32 x) { float y; memcpy(&y, &x, 4); return y; }
DEV u32 __float_as_uint(float x) { u32 y; memcpy(&y, &x, 4); return y; }
DEV float rsqrtf(float x) { return 1.0f / sqrtf(x); }
DEV u16 to_bf16(float x) {
  u32 u = __float_as_uint(x);
  return x != x ? 0x7fff : (u16)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
DEV float of_bf16(u16 x) { return __uint_as_float((u32)x << 16); }
DEV u32 pack_bf16(float low, float high) { return (u32)to_bf16(low) | (u32)to_bf16(high) << 16; }
DEV float fast_exp2(float x) { return exp2f(x); }

DEV void cp_async16(void* to, const void* from) {
  if (((uintptr_t)to | (uintptr_t)from) & 15) return emu::fail("cp.async: not aligned to 16 bytes");
  emu::current->open.push_back({to, from, 16});
}
// As cp_async16, but copies only the first `bytes` (0 to 16) and fills up with zeros.
DEV void cp_async16_partial(void* to, const void* from, unsigned bytes) {
  if (((uintptr_t)to | (uintptr_t)from) & 15) return emu::fail("cp.async: not aligned to 16 bytes");
  emu::current->open.push_back({to, from, bytes});
}
DEV void cp_commit() {
  emu::current->groups.push_back(std::move(emu::current->open));
  emu::current->open.clear();
}
template <int N> static void cp_wait() {
  auto& groups = emu::current->groups;
  while (groups.size() > N) {
    for (auto& c : groups.front()) {
      if (c.bytes) memcpy(c.to, c.from, c.bytes);
      if (c.bytes < 16) memset((char*)c.to + c.bytes, 0, 16 - c.bytes);
    }
    groups.erase(groups.begin());
  }
}
// PTX ISA, ldmatrix .m8n8.x4: lane 8m + r passes the address of row r of matrix m.
DEV void ldmatrix_x4(u32 r[4], const void* row) {
  auto& w = emu::warp();
  int l = emu::lane();
  if ((uintptr_t)row & 15) emu::fail("ldmatrix: row not aligned to 16 bytes");
  w.rows[l] = row;
  __syncwarp();
  for (int m = 0; m < 4; m++) memcpy(&r[m], (const u16*)w.rows[m * 8 + l / 4] + 2 * (l % 4), 4);
  __syncwarp();
}
// As ldmatrix_x4, with every 8x8 matrix transposed.
DEV void ldmatrix_x4_trans(u32 r[4], const void* row) {
  auto& w = emu::warp();
  int l = emu::lane();
  if ((uintptr_t)row & 15) emu::fail("ldmatrix: row not aligned to 16 bytes");
  w.rows[l] = row;
  __syncwarp();
  for (int m = 0; m < 4; m++) {
    u16 lo = ((const u16*)w.rows[m * 8 + 2 * (l % 4)])[l / 4];
    u16 hi = ((const u16*)w.rows[m * 8 + 2 * (l % 4) + 1])[l / 4];
    r[m] = (u32)lo | ((u32)hi << 16);
  }
  __syncwarp();
}
// PTX ISA, mma.m16n8k16, fragments of .bf16: d += a·b.
DEV void mma_16816(float d[4], const u32 a[4], const u32 b[2]) {
  auto& w = emu::warp();
  int l = emu::lane();
  memcpy(w.fragment[l], a, 16);
  memcpy(w.fragment[l] + 4, b, 8);
  __syncwarp();
  auto half = [](u32 v, int i) { return of_bf16((u16)(v >> (16 * i))); };
  auto A = [&](int r, int k) { return half(w.fragment[(r % 8) * 4 + k % 8 / 2][(r / 8) + 2 * (k / 8)], k & 1); };
  auto B = [&](int k, int n) { return half(w.fragment[n * 4 + k % 8 / 2][4 + k / 8], k & 1); };
  for (int i = 0; i < 4; i++) {
    int r = l / 4 + 8 * (i / 2), c = l % 4 * 2 + i % 2;
    float s = d[i];
    for (int k = 0; k < 16; k++) s += A(r, k) * B(k, c);
    d[i] = s;
  }
  __syncwarp();
}
