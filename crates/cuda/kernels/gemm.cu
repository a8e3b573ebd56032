// Products of matrices that are stored row by row, C = alpha A B + beta C, with sums in f32: where cuBLASLt is missing.
// gemm_* takes bf16 factors whose rows begin at multiples of 16 bytes, on tensor cores; gemm_any_* takes anything.

// Starts copying rows `row`.. and columns `col`.. of a matrix [rows, cols] to a tile of pitch COLS + 8, which keeps
// ldmatrix free of bank conflicts. What lies outside of the matrix becomes zeros.
template <int ROWS, int COLS> DEV void load_panel(u16* tile, const u16* x, u32 ld, u32 row, u32 rows, u32 col, u32 cols) {
  const int PIECES = COLS / 8;
#pragma unroll
  for (int i = threadIdx.x; i < ROWS * PIECES; i += 128) {
    u32 r = i / PIECES, c = i % PIECES * 8;
    u32 numbers = row + r < rows && col + c < cols ? cols - (col + c) : 0;
    cp_async16_partial(tile + r * (COLS + 8) + c, x + (numbers ? (u64)(row + r) * ld + col + c : 0), numbers < 8 ? 2 * numbers : 16);
  }
}

// Blocks of 128 x 128 of C, 32 terms at a time in three stages; four warps of 64 x 64. TA, TB: whether the stored
// factor is the transpose. Grid (rows x columns, 1, batch), row by row; shared memory of 3 times the two tiles, see gemm.rs.
template <bool TA, bool TB, class T>
DEV void gemm(const u16* a, const u16* b, T* c, u32 m, u32 n, u32 k, u32 lda, u32 ldb, u32 ldc, float alpha, float beta) {
  const int BLOCK = 128, STEP = 32, WIDE = BLOCK + 8, NARROW = STEP + 8;
  const int A_TILE = TA ? STEP * WIDE : BLOCK * NARROW, B_TILE = TB ? BLOCK * NARROW : STEP * WIDE;
  DYN_SHARED(u16, stages);
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row = (warp >> 1) * 64, col = (warp & 1) * 64;
  u32 across = (n + BLOCK - 1) / BLOCK, first_row = blockIdx.x / across * BLOCK, first_col = blockIdx.x % across * BLOCK;
  u32 steps = (k + STEP - 1) / STEP;
  float sums[4][8][4];
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) sums[i][j][e] = 0.0f;
  auto fetch = [&](u32 step) {
    u16* to = stages + step % 3 * (A_TILE + B_TILE);
    if (step < steps) {
      if (TA) load_panel<STEP, BLOCK>(to, a, lda, step * STEP, k, first_row, m);
      else load_panel<BLOCK, STEP>(to, a, lda, first_row, m, step * STEP, k);
      if (TB) load_panel<BLOCK, STEP>(to + A_TILE, b, ldb, first_col, n, step * STEP, k);
      else load_panel<STEP, BLOCK>(to + A_TILE, b, ldb, step * STEP, k, first_col, n);
    }
    cp_commit();  // a group for each step, also an empty one, so that waits can count
  };
  fetch(0);
  fetch(1);
  for (u32 step = 0; step < steps; step++) {
    cp_wait<1>();
    __syncthreads();  // this step's stage has landed, and nobody reads that of the last step any more
    fetch(step + 2);
    const u16 *as = stages + step % 3 * (A_TILE + B_TILE), *bs = as + A_TILE;
#pragma unroll
    for (int l = 0; l < STEP; l += 16) {
      u32 af[4][4], bf[4][4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int at = row + i * 16;
        if (TA) ldmatrix_x4_trans(af[i], as + (l + ((lane >> 4) << 3) + (lane & 7)) * WIDE + at + ((lane >> 3) & 1) * 8);
        else ldmatrix_x4(af[i], as + (at + (lane & 15)) * NARROW + l + (lane >> 4) * 8);
      }
#pragma unroll
      for (int j = 0; j < 4; j++) {
        int at = col + j * 16;
        if (TB) ldmatrix_x4(bf[j], bs + (at + (lane & 7) + ((lane >> 4) << 3)) * NARROW + l + ((lane >> 3) & 1) * 8);
        else ldmatrix_x4_trans(bf[j], bs + (l + (lane & 15)) * WIDE + at + (lane >> 4) * 8);
      }
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) mma_16816(sums[i][j], af[i], &bf[j >> 1][(j & 1) * 2]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        u32 r = first_row + row + i * 16 + (lane >> 2) + 8 * (e >> 1), at = first_col + col + j * 8 + (lane & 3) * 2 + (e & 1);
        if (r < m && at < n) {
          u64 to = (u64)r * ldc + at;
          // Without beta C may hold NaN.
          store(c, to, alpha * sums[i][j][e] + (beta != 0.0f ? beta * load(c, to) : 0.0f));
        }
      }
}
#define GEMM(T) (const u16* a, const u16* b, T* c, u32 m, u32 n, u32 k, u32 lda, u32 ldb, u32 ldc, u64 batch_a, u64 batch_b, u64 batch_c, float alpha, float beta)
#define RUN_GEMM(TA, TB) { u64 z = blockIdx.z; gemm<TA, TB>(a + z * batch_a, b + z * batch_b, c + z * batch_c, m, n, k, lda, ldb, ldc, alpha, beta); }
KERNEL_BOUNDED(gemm_nn_f32, 128, 2, GEMM(float)) RUN_GEMM(false, false)
KERNEL_BOUNDED(gemm_nt_f32, 128, 2, GEMM(float)) RUN_GEMM(false, true)
KERNEL_BOUNDED(gemm_tn_f32, 128, 2, GEMM(float)) RUN_GEMM(true, false)
KERNEL_BOUNDED(gemm_tt_f32, 128, 2, GEMM(float)) RUN_GEMM(true, true)
KERNEL_BOUNDED(gemm_nn_bf16, 128, 2, GEMM(u16)) RUN_GEMM(false, false)
KERNEL_BOUNDED(gemm_nt_bf16, 128, 2, GEMM(u16)) RUN_GEMM(false, true)
KERNEL_BOUNDED(gemm_tn_bf16, 128, 2, GEMM(u16)) RUN_GEMM(true, false)
KERNEL_BOUNDED(gemm_tt_bf16, 128, 2, GEMM(u16)) RUN_GEMM(true, true)

// Any types, strides and alignments: 16 x 16 threads, a number of C each. Strides between rows and between columns.
template <class X, class T>
DEV void gemm_any(const X* a, const X* b, T* c, u32 m, u32 n, u32 k, u64 a_row, u64 a_col, u64 b_row, u64 b_col, u64 ldc, float alpha,
                  float beta, float (*as)[17], float (*bs)[17]) {
  u32 across = (n + 15) / 16, x = threadIdx.x & 15, y = threadIdx.x >> 4;
  u32 row = blockIdx.x / across * 16 + y, col = blockIdx.x % across * 16 + x;
  float sum = 0.0f;
  for (u32 l = 0; l < k; l += 16) {
    as[y][x] = row < m && l + x < k ? load(a, row * a_row + (l + x) * a_col) : 0.0f;
    bs[y][x] = l + y < k && col < n ? load(b, (l + y) * b_row + col * b_col) : 0.0f;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 16; i++) sum += as[y][i] * bs[i][x];
    __syncthreads();
  }
  if (row >= m || col >= n) return;
  u64 to = row * ldc + col;
  store(c, to, alpha * sum + (beta != 0.0f ? beta * load(c, to) : 0.0f));
}
#define GEMM_ANY(X, T) (const X* a, const X* b, T* c, u32 m, u32 n, u32 k, u64 a_row, u64 a_col, u64 b_row, u64 b_col, u64 ldc, u64 batch_a, u64 batch_b, u64 batch_c, float alpha, float beta)
#define RUN_GEMM_ANY {                                    \
    __shared__ float as[16][17];                          \
    __shared__ float bs[16][17];                          \
    u64 z = blockIdx.z;                                   \
    gemm_any(a + z * batch_a, b + z * batch_b, c + z * batch_c, m, n, k, a_row, a_col, b_row, b_col, ldc, alpha, beta, as, bs); \
  }
KERNEL_BOUNDED(gemm_any_f32_f32, 256, 4, GEMM_ANY(float, float)) RUN_GEMM_ANY
KERNEL_BOUNDED(gemm_any_f32_bf16, 256, 4, GEMM_ANY(float, u16)) RUN_GEMM_ANY
KERNEL_BOUNDED(gemm_any_bf16_f32, 256, 4, GEMM_ANY(u16, float)) RUN_GEMM_ANY
KERNEL_BOUNDED(gemm_any_bf16_bf16, 256, 4, GEMM_ANY(u16, u16)) RUN_GEMM_ANY
