// The nonlinearity of a Pattention site along the scores of a row, in place. One block of 128 threads a row and norm group:
// the number of threads does not depend on the number of tokens, so appended zeros change no bit of a sum.

// A row's scores of a norm group, and where its statistic lies.
struct Group {
  u64 first;  // of the row's scores
  u32 tokens;
  u64 stat;
};
DEV Group group_of_row(u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups) {
  u64 row = blockIdx.x;
  return {row * row_stride + offset, tokens, row * groups + group};
}

// Wide rows: a thread takes 8 numbers at a time, with 128-bit instructions where addresses allow it. Which thread has a
// number, and the order of its sums, do not depend on that. Numbers beyond the end are 0.
DEV bool is_aligned(const void* p) { return ((u64)p & 15) == 0; }
DEV void load_line(const u16* p, float x[8]) {
  Line line = *(const Line*)p;
  for (int i = 0; i < 8; i++) x[i] = of_bf16((u16)(line.w[i / 2] >> (i % 2 * 16)));
}
DEV void load_line(const float* p, float x[8]) {
  Line low = ((const Line*)p)[0], high = ((const Line*)p)[1];
  for (int i = 0; i < 4; i++) x[i] = __uint_as_float(low.w[i]), x[i + 4] = __uint_as_float(high.w[i]);
}
DEV void store_line(u16* p, const float x[8]) {
  Line line;
  for (int i = 0; i < 4; i++) line.w[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
  *(Line*)p = line;
}
DEV void store_line(float* p, const float x[8]) {
  Line low, high;
  for (int i = 0; i < 4; i++) low.w[i] = __float_as_uint(x[i]), high.w[i] = __float_as_uint(x[i + 4]);
  ((Line*)p)[0] = low;
  ((Line*)p)[1] = high;
}
template <class T> DEV void load_eight(const T* p, u32 i, u32 end, bool aligned, float x[8]) {
  if (aligned && i + 8 <= end) return load_line(p + i, x);
  for (u32 j = 0; j < 8; j++) x[j] = i + j < end ? load(p, i + j) : 0.0f;
}
template <class T> DEV void store_eight(T* p, u32 i, u32 end, bool aligned, const float x[8]) {
  if (aligned && i + 8 <= end) return store_line(p + i, x);
  for (u32 j = 0; j < 8; j++)
    if (i + j < end) store(p, i + j, x[j]);
}

// gelu(tau·a / (|a| + eps)); the statistic is |a|.
template <class T> DEV void l2_norm_gelu(T* a, float* stats, Group g, float tau, float eps, float* part) {
  a += g.first;
  bool aligned = is_aligned(a);
  float squares = 0, x[8];
  for (u32 i = threadIdx.x * 8; i < g.tokens; i += blockDim.x * 8) {
    load_eight(a, i, g.tokens, aligned, x);
    for (int j = 0; j < 8; j++) squares += x[j] * x[j];
  }
  float norm = sqrtf(block_sum(squares, part)), scale = tau / (norm + eps);
  for (u32 i = threadIdx.x * 8; i < g.tokens; i += blockDim.x * 8) {
    load_eight(a, i, g.tokens, aligned, x);
    for (int j = 0; j < 8; j++) x[j] = gelu_of(x[j] * scale);
    store_eight(a, i, g.tokens, aligned, x);
  }
  if (threadIdx.x == 0) stats[g.stat] = norm;
}
template <class T> DEV void l2_norm_gelu_backward(T* a, const float* stats, T* d, Group g, float tau, float eps, float* part) {
  a += g.first;
  d += g.first;
  bool aligned = is_aligned(a) && is_aligned(d);
  float norm = stats[g.stat], scale = tau / (norm + eps), inner = 0, x[8], dy[8];
  for (u32 i = threadIdx.x * 8; i < g.tokens; i += blockDim.x * 8) {
    load_eight(a, i, g.tokens, aligned, x);
    load_eight(d, i, g.tokens, aligned, dy);
    for (int j = 0; j < 8; j++) inner += x[j] * dy[j] * gelu_slope(x[j] * scale);
  }
  inner = block_sum(inner, part);
  float along = norm > 0.0f ? inner * scale / (norm * (norm + eps)) : 0.0f;
  for (u32 i = threadIdx.x * 8; i < g.tokens; i += blockDim.x * 8) {
    load_eight(a, i, g.tokens, aligned, x);
    load_eight(d, i, g.tokens, aligned, dy);
    for (int j = 0; j < 8; j++) {
      float z = x[j] * scale;
      dy[j] = scale * dy[j] * gelu_slope(z) - along * x[j];
      x[j] = gelu_of(z);
    }
    store_eight(d, i, g.tokens, aligned, dy);
    store_eight(a, i, g.tokens, aligned, x);
  }
}

// gelu(tau²·a / (|a|₁ + eps)); the statistic is |a|₁, the sum of the absolute scores.
template <class T> DEV void l1_norm_gelu(T* a, float* stats, Group g, float tau, float eps, float* part) {
  float sum = 0;
  for (u32 i = threadIdx.x; i < g.tokens; i += blockDim.x) sum += fabsf(load(a, g.first + i));
  float norm = block_sum(sum, part), scale = tau * tau / (norm + eps);
  for (u32 i = threadIdx.x; i < g.tokens; i += blockDim.x) store(a, g.first + i, gelu_of(load(a, g.first + i) * scale));
  if (threadIdx.x == 0) stats[g.stat] = norm;
}
template <class T> DEV void l1_norm_gelu_backward(T* a, const float* stats, T* d, Group g, float tau, float eps, float* part) {
  float total = stats[g.stat] + eps, scale = tau * tau / total, inner = 0;
  for (u32 i = threadIdx.x; i < g.tokens; i += blockDim.x) {
    float x = load(a, g.first + i);
    inner += x * load(d, g.first + i) * gelu_slope(x * scale);
  }
  float along = block_sum(inner, part) / total;
  for (u32 i = threadIdx.x; i < g.tokens; i += blockDim.x) {
    float x = load(a, g.first + i), z = x * scale;
    float sign = x == 0.0f ? 0.0f : copysignf(1.0f, x);
    store(d, g.first + i, scale * (load(d, g.first + i) * gelu_slope(z) - sign * along));
    store(a, g.first + i, gelu_of(z));
  }
}

// tau·gelu(a) / (|gelu(a)| + eps); the statistic is |gelu(a)|.
template <class T> DEV void gelu_l2_norm(T* a, float* stats, Group g, float tau, float eps, float* part) {
  float squares = 0;
  for (u32 i = threadIdx.x; i < g.tokens; i += blockDim.x) {
    float u = gelu_of(load(a, g.first + i));
    squares += u * u;
  }
  float norm = sqrtf(block_sum(squares, part)), scale = tau / (norm + eps);
  for (u32 i = threadIdx.x; i < g.tokens; i += blockDim.x) store(a, g.first + i, gelu_of(load(a, g.first + i)) * scale);
  if (threadIdx.x == 0) stats[g.stat] = norm;
}
template <class T> DEV void gelu_l2_norm_backward(T* a, const float* stats, T* d, Group g, float tau, float eps, float* part) {
  float norm = stats[g.stat], scale = tau / (norm + eps), inner = 0;
  for (u32 i = threadIdx.x; i < g.tokens; i += blockDim.x) inner += gelu_of(load(a, g.first + i)) * load(d, g.first + i);
  inner = block_sum(inner, part);
  float along = norm > 0.0f ? inner / (norm * (norm + eps)) : 0.0f;
  for (u32 i = threadIdx.x; i < g.tokens; i += blockDim.x) {
    float x = load(a, g.first + i), u = gelu_of(x);
    store(d, g.first + i, scale * (load(d, g.first + i) - u * along) * gelu_slope(x));
    store(a, g.first + i, u * scale);
  }
}

// tau²·softmax(a); the statistic is the log of the denominator.
template <class T> DEV void softmax(T* a, float* stats, Group g, float tau, float eps, float* part) {
  float largest = -INFINITY, sum = 0;
  for (u32 i = threadIdx.x; i < g.tokens; i += blockDim.x) largest = fmaxf(largest, load(a, g.first + i));
  largest = block_max(largest, part);
  for (u32 i = threadIdx.x; i < g.tokens; i += blockDim.x) sum += expf(load(a, g.first + i) - largest);
  sum = block_sum(sum, part);
  float scale = tau * tau / sum;
  for (u32 i = threadIdx.x; i < g.tokens; i += blockDim.x)
    store(a, g.first + i, expf(load(a, g.first + i) - largest) * scale);
  if (threadIdx.x == 0) stats[g.stat] = largest + logf(sum);
}
template <class T> DEV void softmax_backward(T* a, const float* stats, T* d, Group g, float tau, float eps, float* part) {
  float log_sum = stats[g.stat], inner = 0;
  for (u32 i = threadIdx.x; i < g.tokens; i += blockDim.x)
    inner += expf(load(a, g.first + i) - log_sum) * load(d, g.first + i);
  inner = block_sum(inner, part);
  for (u32 i = threadIdx.x; i < g.tokens; i += blockDim.x) {
    float weight = tau * tau * expf(load(a, g.first + i) - log_sum);
    store(d, g.first + i, weight * (load(d, g.first + i) - inner));
    store(a, g.first + i, weight);
  }
}

// gelu(a), without a norm; the statistic is 0.
template <class T> DEV void gelu(T* a, float* stats, Group g, float tau, float eps, float* part) {
  for (u32 i = threadIdx.x; i < g.tokens; i += blockDim.x) store(a, g.first + i, gelu_of(load(a, g.first + i)));
  if (threadIdx.x == 0) stats[g.stat] = 0.0f;
}
template <class T> DEV void gelu_backward(T* a, const float* stats, T* d, Group g, float tau, float eps, float* part) {
  for (u32 i = threadIdx.x; i < g.tokens; i += blockDim.x) {
    float x = load(a, g.first + i);
    store(d, g.first + i, load(d, g.first + i) * gelu_slope(x));
    store(a, g.first + i, gelu_of(x));
  }
}

KERNEL(theta_l2_norm_gelu_f32, (float* a, float* stats, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  l2_norm_gelu(a, stats, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_l2_norm_gelu_bf16, (u16* a, float* stats, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  l2_norm_gelu(a, stats, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_l2_norm_gelu_backward_f32, (float* a, const float* stats, float* d, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  l2_norm_gelu_backward(a, stats, d, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_l2_norm_gelu_backward_bf16, (u16* a, const float* stats, u16* d, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  l2_norm_gelu_backward(a, stats, d, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_l1_norm_gelu_f32, (float* a, float* stats, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  l1_norm_gelu(a, stats, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_l1_norm_gelu_bf16, (u16* a, float* stats, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  l1_norm_gelu(a, stats, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_l1_norm_gelu_backward_f32, (float* a, const float* stats, float* d, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  l1_norm_gelu_backward(a, stats, d, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_l1_norm_gelu_backward_bf16, (u16* a, const float* stats, u16* d, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  l1_norm_gelu_backward(a, stats, d, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_gelu_l2_norm_f32, (float* a, float* stats, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  gelu_l2_norm(a, stats, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_gelu_l2_norm_bf16, (u16* a, float* stats, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  gelu_l2_norm(a, stats, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_gelu_l2_norm_backward_f32, (float* a, const float* stats, float* d, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  gelu_l2_norm_backward(a, stats, d, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_gelu_l2_norm_backward_bf16, (u16* a, const float* stats, u16* d, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  gelu_l2_norm_backward(a, stats, d, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_softmax_f32, (float* a, float* stats, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  softmax(a, stats, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_softmax_bf16, (u16* a, float* stats, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  softmax(a, stats, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_softmax_backward_f32, (float* a, const float* stats, float* d, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  softmax_backward(a, stats, d, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_softmax_backward_bf16, (u16* a, const float* stats, u16* d, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  softmax_backward(a, stats, d, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_gelu_f32, (float* a, float* stats, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  gelu(a, stats, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_gelu_bf16, (u16* a, float* stats, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  gelu(a, stats, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_gelu_backward_f32, (float* a, const float* stats, float* d, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  gelu_backward(a, stats, d, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
KERNEL(theta_gelu_backward_bf16, (u16* a, const float* stats, u16* d, u32 row_stride, u32 offset, u32 tokens, u32 group, u32 groups, float tau, float eps)) {
  __shared__ float part[32];
  gelu_backward(a, stats, d, group_of_row(row_stride, offset, tokens, group, groups), tau, eps, part);
}
