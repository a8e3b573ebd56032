// Operations on each number, or on each number and its row or column. One thread a number.

template <class X, class Y> DEV void add_to(const X* x, Y* y, u64 n) {
  u64 i = thread_number();
  if (i < n) store(y, i, load(y, i) + load(x, i));
}
KERNEL(add_f32, (const float* x, float* y, u64 n)) { add_to(x, y, n); }
KERNEL(add_bf16, (const u16* x, u16* y, u64 n)) { add_to(x, y, n); }
