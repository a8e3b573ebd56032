// The optimizer: norms of gradients in f64, clipping, AdamW. Nothing goes through the host.

DEV double block_sum_f64(double x, double* part) {
  for (int o = 16; o; o >>= 1) x += __shfl_xor_sync(ALL_LANES, x, o);
  u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  if (lane == 0) part[warp] = x;
  __syncthreads();
  x = lane < warps ? part[lane] : 0.0;
  for (int o = 16; o; o >>= 1) x += __shfl_xor_sync(ALL_LANES, x, o);
  return x;
}

// partial[block] = Σ x² of the numbers that the block visits.
template <class T> DEV void squares(const T* x, double* partial, u64 n, double* part) {
  double sum = 0;
  for (u64 i = thread_number(); i < n; i += (u64)gridDim.x * blockDim.x) {
    double number = load(x, i);
    sum += number * number;
  }
  sum = block_sum_f64(sum, part);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
KERNEL(squares_f32, (const float* x, double* partial, u64 n)) {
  __shared__ double part[32];
  squares(x, partial, n, part);
}
KERNEL(squares_bf16, (const u16* x, double* partial, u64 n)) {
  __shared__ double part[32];
  squares(x, partial, n, part);
}

// sums[group] += Σ partial; one block.
KERNEL(add_squares, (const double* partial, double* sums, u32 count, u32 group)) {
  __shared__ double part[32];
  double sum = 0;
  for (u32 i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
  sum = block_sum_f64(sum, part);
  if (threadIdx.x == 0) sums[group] += sum;
}

// The factors of gradients; one thread, since groups are few.
KERNEL(clip_factors, (const double* sums, float* factors, u32 groups, double limit)) {
  if (thread_number() > 0) return;
  bool finite = true;
  for (u32 i = 0; i < groups; i++) finite = finite && sums[i] - sums[i] == 0.0;
  for (u32 i = 0; i < groups; i++) {
    double norm = sqrt(sums[i]);
    double factor = limit > 0.0 && norm > limit ? limit / (norm + 1e-6) : 1.0;
    factors[i] = finite ? (float)factor : __uint_as_float(0x7fffffffu);
  }
}

// One update. scalars: learning rate, inverse root and what decay leaves, for each parameter. If the factor is NaN, nothing
// changes. Moments are f32 or, rounded after every update, bfloat16.
template <class M>
DEV void adamw_each(float* p, const float* g, M* m, M* v, const float* scalars, u32 slot, const float* factors, u32 group,
                    float beta1, float beta2, float eps, u64 n) {
  u64 i = thread_number();
  float factor = factors[group];
  if (i >= n || factor != factor) return;
  float rate = scalars[3 * slot], inverse_root = scalars[3 * slot + 1], kept = scalars[3 * slot + 2];
  float d = g[i] * factor;
  float first = beta1 * load(m, i) + (1.0f - beta1) * d;
  float second = beta2 * load(v, i) + (1.0f - beta2) * d * d;
  store(m, i, first);
  store(v, i, second);
  p[i] = kept * p[i] - rate * first / (sqrtf(second) * inverse_root + eps);
}
KERNEL(adamw_f32, (float* p, const float* g, float* m, float* v, const float* scalars, u32 slot, const float* factors, u32 group, float beta1, float beta2, float eps, u64 n)) {
  adamw_each(p, g, m, v, scalars, slot, factors, group, beta1, beta2, eps, n);
}
KERNEL(adamw_bf16, (float* p, const float* g, u16* m, u16* v, const float* scalars, u32 slot, const float* factors, u32 group, float beta1, float beta2, float eps, u64 n)) {
  adamw_each(p, g, m, v, scalars, slot, factors, group, beta1, beta2, eps, n);
}
