// Operations on each number, or on each number and its row or column: one thread a number.

template <class T> DEV void add_each(const T* x, T* y, u64 n) {
  u64 i = thread_number();
  if (i < n) store(y, i, load(y, i) + load(x, i));
}
KERNEL(add_f32, (const float* x, float* y, u64 n)) { add_each(x, y, n); }
KERNEL(add_bf16, (const u16* x, u16* y, u64 n)) { add_each(x, y, n); }

template <class T> DEV void gelu_each(const T* x, T* y, u64 n) {
  u64 i = thread_number();
  if (i < n) store(y, i, gelu_of(load(x, i)));
}
KERNEL(gelu_f32, (const float* x, float* y, u64 n)) { gelu_each(x, y, n); }
KERNEL(gelu_bf16, (const u16* x, u16* y, u64 n)) { gelu_each(x, y, n); }

template <class T> DEV void gelu_backward_each(const T* x, const T* dy, T* dx, u64 n) {
  u64 i = thread_number();
  if (i < n) store(dx, i, load(dy, i) * gelu_slope(load(x, i)));
}
KERNEL(gelu_backward_f32, (const float* x, const float* dy, float* dx, u64 n)) { gelu_backward_each(x, dy, dx, n); }
KERNEL(gelu_backward_bf16, (const u16* x, const u16* dy, u16* dx, u64 n)) { gelu_backward_each(x, dy, dx, n); }

// y[r] += bias for rows of `width`.
template <class T> DEV void add_to_rows_each(const float* bias, T* y, u64 n, u32 width) {
  u64 i = thread_number();
  if (i < n) store(y, i, load(y, i) + bias[i % width]);
}
KERNEL(add_to_rows_f32, (const float* bias, float* y, u64 n, u32 width)) { add_to_rows_each(bias, y, n, width); }
KERNEL(add_to_rows_bf16, (const float* bias, u16* y, u64 n, u32 width)) { add_to_rows_each(bias, y, n, width); }

// y[r] = factors[r] · x[r], or added to y.
template <class T> DEV void scale_rows_each(const T* x, const float* factors, T* y, u64 n, u32 width, u32 adds) {
  u64 i = thread_number();
  if (i >= n) return;
  float scaled = factors[i / width] * load(x, i);
  store(y, i, adds ? load(y, i) + scaled : scaled);
}
KERNEL(scale_rows_f32, (const float* x, const float* factors, float* y, u64 n, u32 width, u32 adds)) { scale_rows_each(x, factors, y, n, width, adds); }
KERNEL(scale_rows_bf16, (const u16* x, const float* factors, u16* y, u64 n, u32 width, u32 adds)) { scale_rows_each(x, factors, y, n, width, adds); }

// y += weight · (x − y): averaged weights.
KERNEL(lerp_f32, (const float* x, float* y, float weight, u64 n)) {
  u64 i = thread_number();
  if (i < n) y[i] += weight * (x[i] - y[i]);
}

// Rows of `cols` numbers in bfloat16, `pitch` numbers apart, of rows that are `stride` apart; n numbers in all.
template <class T> DEV void pack_rows_each(const T* x, u16* y, u64 n, u32 cols, u64 stride, u64 pitch) {
  u64 i = thread_number();
  if (i < n) store(y, i / cols * pitch + i % cols, load(x, i / cols * stride + i % cols));
}
KERNEL(pack_rows_f32, (const float* x, u16* y, u64 n, u32 cols, u64 stride, u64 pitch)) { pack_rows_each(x, y, n, cols, stride, pitch); }
KERNEL(pack_rows_bf16, (const u16* x, u16* y, u64 n, u32 cols, u64 stride, u64 pitch)) { pack_rows_each(x, y, n, cols, stride, pitch); }

// Rounds to bfloat16.
KERNEL(round_bf16, (const float* x, u16* y, u64 n)) {
  u64 i = thread_number();
  if (i < n) y[i] = to_bf16(x[i]);
}
