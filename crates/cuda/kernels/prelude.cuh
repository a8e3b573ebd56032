// What all kernels share. In front of every file of kernels: NVRTC compiles the two as one text, without any header;
// the emulator includes cuda_emu.h instead of the part that only a GPU understands.
#ifndef EMULATED
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
#define DEV static __device__ __forceinline__
// A kernel that is launched by its name. `params` is its parameter list in parentheses.
#define KERNEL(name, params) extern "C" __global__ void name params
// With the largest number of threads of a block, and the number of blocks that should fit on a multiprocessor.
#define KERNEL_BOUNDED(name, threads, blocks, params) extern "C" __global__ void __launch_bounds__(threads, blocks) name params
#define DYN_SHARED(type, name) \
  extern __shared__ __align__(128) unsigned char shared_bytes[]; \
  type* name = (type*)shared_bytes
DEV u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
DEV u16 to_bf16(float x) { u16 y; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x)); return y; }
DEV float of_bf16(u16 x) { return __uint_as_float((u32)x << 16); }
// Two rounded numbers, `low` in the lower half.
DEV u32 pack_bf16(float low, float high) { u32 y; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low)); return y; }
// 2^x of the special function unit; its relative error of about 2^-22 is far below a rounding to bf16.
DEV float fast_exp2(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
DEV void cp_async16(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(shared_address(to)), "l"(from) : "memory");
}
DEV void cp_async16_partial(void* to, const void* from, unsigned bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}
DEV void cp_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> static __device__ __forceinline__ void cp_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory"); }
DEV void ldmatrix_x4(u32 r[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
    : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
DEV void ldmatrix_x4_trans(u32 r[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
    : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
DEV void mma_16816(float d[4], const u32 a[4], const u32 b[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

#define ALL_LANES 0xffffffffu
#ifndef INFINITY
#define INFINITY __uint_as_float(0x7f800000u)
#endif
// A lambda that a device function calls.
#define LAMBDA(...) [=](__VA_ARGS__)

DEV u32 least(u32 a, u32 b) { return a < b ? a : b; }

// 16 bytes, which one instruction loads or stores.
struct __align__(16) Line { u32 w[4]; };

// Numbers in memory are f32 or bf16 (as u16); kernels compute in f32.
DEV float load(const float* p, u64 i) { return p[i]; }
DEV float load(const u16* p, u64 i) { return of_bf16(p[i]); }
DEV void store(float* p, u64 i, float x) { p[i] = x; }
DEV void store(u16* p, u64 i, float x) { p[i] = to_bf16(x); }

// The number of this thread in a grid of one dimension.
DEV u64 thread_number() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }

DEV float warp_sum(float x) {
  for (int o = 16; o; o >>= 1) x += __shfl_xor_sync(ALL_LANES, x, o);
  return x;
}
DEV float warp_max(float x) {
  for (int o = 16; o; o >>= 1) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, o));
  return x;
}

// Sum over a block of whole warps; all threads get it. `part` has 32 places in shared memory. The order of the sum
// depends on the number of threads only.
DEV float block_sum(float x, float* part) {
  x = warp_sum(x);
  u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  __syncthreads();  // the places may still be read from the last call
  if (lane == 0) part[warp] = x;
  __syncthreads();
  x = lane < warps ? part[lane] : 0.0f;
  return warp_sum(x);
}
DEV float block_max(float x, float* part) {
  x = warp_max(x);
  u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  __syncthreads();
  if (lane == 0) part[warp] = x;
  __syncthreads();
  x = lane < warps ? part[lane] : part[0];
  return warp_max(x);
}

// Exact GELU, z·Φ(z), and its derivative.
DEV float gelu_of(float z) { return 0.5f * z * (1.0f + erff(z * 0.70710678118654752f)); }
DEV float gelu_slope(float z) {
  return 0.5f * (1.0f + erff(z * 0.70710678118654752f)) + z * 0.39894228040143268f * expf(-0.5f * z * z);
}
