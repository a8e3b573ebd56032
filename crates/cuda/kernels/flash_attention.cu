// Softmax attention between tokens per head, forward and backward, in bf16 with f32 sums, without a T x T matrix
// (Dao, FlashAttention-2, arXiv 2307.08691): a block of four warps holds a tile of rows, streams the other side through
// shared memory in two stages of asynchronous copies, and keeps probabilities in registers.
//
// Axes: B sequences, H heads, C channels, T_q queries, T_k keys; rows [B*T, H*C], whose starts are `ld_*` numbers
// apart. A kernel for CP channels takes any C <= CP that is a multiple of 8; the others are zeros in shared memory.
// The backward pass is two kernels, one per tile of keys and one per tile of queries: scores are computed twice, but no
// sum is split between blocks, so it needs no atomic addition and gives the same bits in every run.

// Sizes; queries are the last `queries` of `keys` positions.
struct Attention {
  int queries, keys, key_stride, heads, channels, causal;
  int ld_q, ld_k, ld_v, ld_o;  // the gradients have the strides of what they are gradients of
  float scale;                 // factor of the scores
};

#define LOG2E 1.4426950408889634f
#define ATTENTION_THREADS 128

// Keys that query `row` of a sequence sees.
DEV int visible(const Attention& a, int row) { return a.causal ? a.keys - a.queries + row + 1 : a.keys; }

// Starts copying `ROWS` rows of a head to a tile of pitch CP + 8, which keeps ldmatrix free of bank conflicts. Rows
// from `limit` on, and channels that the head does not have, become zeros.
template <int ROWS, int CP>
DEV void load_tile(u16* tile, const u16* rows, int ld, int first, int limit, int channels) {
  const int PIECES = CP / 8;
#pragma unroll
  for (int i = threadIdx.x; i < ROWS * PIECES; i += ATTENTION_THREADS) {
    int r = i / PIECES, c = i % PIECES * 8;
    bool valid = first + r < limit && c < channels;
    cp_async16_partial(tile + r * (CP + 8) + c, rows + (valid ? (u64)(first + r) * ld + c : 0), valid ? 16 : 0);
  }
}

// Rows row..row+15, columns k..k+15 of a tile as left factor.
DEV void left(u32 a[4], const u16* tile, int pitch, int row, int k) {
  int lane = threadIdx.x & 31;
  ldmatrix_x4(a, tile + (row + (lane & 15)) * pitch + k + (lane >> 4) * 8);
}
// Of a tile [n, k]: columns n..n+15 and k..k+15 of its transpose as two right factors.
DEV void right(u32 b[4], const u16* tile, int pitch, int n, int k) {
  int lane = threadIdx.x & 31;
  ldmatrix_x4(b, tile + (n + (lane & 7) + ((lane >> 4) << 3)) * pitch + k + ((lane >> 3) & 1) * 8);
}
// Of a tile [k, n]: rows k..k+15 and columns n..n+15 as two right factors.
DEV void right_rows(u32 b[4], const u16* tile, int pitch, int k, int n) {
  int lane = threadIdx.x & 31;
  ldmatrix_x4_trans(b, tile + (k + (lane & 15)) * pitch + n + (lane >> 4) * 8);
}

template <int MT, int NT>
DEV void clear(float x[MT][NT][4]) {
#pragma unroll
  for (int m = 0; m < MT; m++)
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) x[m][n][e] = 0.0f;
}

// x [16 MT, N] = rows `row` on of tile `a` [.., CP] times the transpose of tile `b` [N, CP].
template <int CP, int MT, int N>
DEV void scores(float x[MT][N / 8][4], const u16* a, int row, const u16* b) {
  clear<MT, N / 8>(x);
#pragma unroll
  for (int k = 0; k < CP; k += 16) {
    u32 af[MT][4];
#pragma unroll
    for (int m = 0; m < MT; m++) left(af[m], a, CP + 8, row + m * 16, k);
#pragma unroll
    for (int n = 0; n < N / 16; n++) {
      u32 bf[4];
      right(bf, b, CP + 8, n * 16, k);
#pragma unroll
      for (int m = 0; m < MT; m++) {
        mma_16816(x[m][2 * n], af[m], bf);
        mma_16816(x[m][2 * n + 1], af[m], bf + 2);
      }
    }
  }
}

// x [16 MT, CP] += p [16 MT, N] (of a warp's registers, rounded to bf16) times tile `b` [N, CP].
template <int CP, int MT, int N>
DEV void accumulate(float x[MT][CP / 8][4], const float p[MT][N / 8][4], const u16* b) {
#pragma unroll
  for (int k = 0; k < N / 16; k++) {
    u32 af[MT][4];
#pragma unroll
    for (int m = 0; m < MT; m++) {
      // The layout of a result [16, 8] is that of a half of a left factor [16, 16].
      af[m][0] = pack_bf16(p[m][2 * k][0], p[m][2 * k][1]);
      af[m][1] = pack_bf16(p[m][2 * k][2], p[m][2 * k][3]);
      af[m][2] = pack_bf16(p[m][2 * k + 1][0], p[m][2 * k + 1][1]);
      af[m][3] = pack_bf16(p[m][2 * k + 1][2], p[m][2 * k + 1][3]);
    }
#pragma unroll
    for (int n = 0; n < CP / 16; n++) {
      u32 bf[4];
      right_rows(bf, b, CP + 8, k * 16, n * 16);
#pragma unroll
      for (int m = 0; m < MT; m++) {
        mma_16816(x[m][2 * n], af[m], bf);
        mma_16816(x[m][2 * n + 1], af[m], bf + 2);
      }
    }
  }
}

// Writes a warp's x [16 MT, CP], times a factor per row (two rows of a lane in each part), to rows `first + row` on of
// a head, through the warp's own rows of a tile, so that whole lines of memory are written.
template <int CP, int MT>
DEV void store_rows(u16* rows, int ld, int first, int row, int limit, int channels, u16* tile, const float x[MT][CP / 8][4],
                    const float factor[MT][2]) {
  const int P = CP + 8, PIECES = CP / 8;
  int lane = threadIdx.x & 31;
  __syncwarp();  // other lanes may still read the tile as a factor
#pragma unroll
  for (int m = 0; m < MT; m++)
#pragma unroll
    for (int n = 0; n < CP / 8; n++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        u16* to = tile + (row + m * 16 + half * 8 + (lane >> 2)) * P + n * 8 + (lane & 3) * 2;
        *(u32*)to = pack_bf16(x[m][n][2 * half] * factor[m][half], x[m][n][2 * half + 1] * factor[m][half]);
      }
  __syncwarp();
#pragma unroll
  for (int i = lane; i < 16 * MT * PIECES; i += 32) {
    int r = row + i / PIECES, c = i % PIECES * 8;
    if (first + r < limit && c < channels) *(Line*)(rows + (u64)(first + r) * ld + c) = *(const Line*)(tile + r * P + c);
  }
}

// o [B*T_q, H*C] and, unless null, log_sums [B, H, T_q], the logarithms of the softmax denominators. A block takes
// 64 MT queries of a head: grid (tiles, H, B).
template <int CP, int MT, int BN>
DEV void flash_forward(const u16* q, const u16* k, const u16* v, u16* o, float* log_sums, const Attention& a) {
  const int P = CP + 8, BM = 64 * MT, TILE = BN * P;
  DYN_SHARED(u16, smem);
  u16 *qs = smem, *stages = smem + BM * P;
  int lane = threadIdx.x & 31, row = (threadIdx.x >> 5) * 16 * MT;
  // With a causal mask the last queries have the most work, and start first.
  int first = (int)(gridDim.x - 1 - blockIdx.x) * BM, h = blockIdx.y, b = blockIdx.z;
  q += (u64)b * a.queries * a.ld_q + h * a.channels;
  k += (u64)b * a.key_stride * a.ld_k + h * a.channels;
  v += (u64)b * a.key_stride * a.ld_v + h * a.channels;
  int last = first + BM < a.queries ? first + BM : a.queries;
  int blocks = (visible(a, last - 1) + BN - 1) / BN;
  auto load = [&](int j) {
    u16* to = stages + (j & 1) * 2 * TILE;
    load_tile<BN, CP>(to, k, a.ld_k, j * BN, a.keys, a.channels);
    load_tile<BN, CP>(to + TILE, v, a.ld_v, j * BN, a.keys, a.channels);
    cp_commit();
  };
  load_tile<BM, CP>(qs, q, a.ld_q, first, a.queries, a.channels);
  load(0);
  const float NONE = -__uint_as_float(0x7f800000u), scale2 = a.scale * LOG2E;
  float out[MT][CP / 8][4], top[MT][2], sum[MT][2];
  clear<MT, CP / 8>(out);
#pragma unroll
  for (int m = 0; m < MT; m++)
#pragma unroll
    for (int half = 0; half < 2; half++) top[m][half] = NONE, sum[m][half] = 0.0f;
  for (int j = 0; j < blocks; j++) {
    cp_wait<0>();
    __syncthreads();  // stage j has landed, and nobody reads the other one any more
    if (j + 1 < blocks) load(j + 1);
    // Keys that the warp's first row sees, and those up to its last row.
    int seen = visible(a, first + row), unseen = visible(a, first + row + 16 * MT - 1);
    if (j * BN >= unseen) continue;
    const u16* ks = stages + (j & 1) * 2 * TILE;
    float p[MT][BN / 8][4];
    scores<CP, MT, BN>(p, qs, row, ks);
    if ((j + 1) * BN > seen) {
#pragma unroll
      for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < BN / 8; n++)
#pragma unroll
          for (int e = 0; e < 4; e++) {
            int key = j * BN + n * 8 + (lane & 3) * 2 + (e & 1), query = first + row + m * 16 + (lane >> 2) + 8 * (e >> 1);
            if (key >= visible(a, query)) p[m][n][e] = NONE;
          }
    }
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float peak = top[m][half];
#pragma unroll
        for (int n = 0; n < BN / 8; n++) peak = fmaxf(peak, fmaxf(p[m][n][2 * half], p[m][n][2 * half + 1]));
        // The four lanes of a row.
        peak = fmaxf(peak, __shfl_xor_sync(ALL_LANES, peak, 1));
        peak = fmaxf(peak, __shfl_xor_sync(ALL_LANES, peak, 2));
        // Every query sees key 0, so that from the first block on `peak` is a number.
        float shrink = fast_exp2((top[m][half] - peak) * scale2), part = 0.0f;
        top[m][half] = peak;
#pragma unroll
        for (int n = 0; n < BN / 8; n++)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; e++) part += p[m][n][e] = fast_exp2(p[m][n][e] * scale2 - peak * scale2);
        sum[m][half] = sum[m][half] * shrink + part;
#pragma unroll
        for (int n = 0; n < CP / 8; n++) out[m][n][2 * half] *= shrink, out[m][n][2 * half + 1] *= shrink;
      }
    accumulate<CP, MT, BN>(out, p, ks + TILE);
  }
  u64 stats = ((u64)b * a.heads + h) * a.queries;
#pragma unroll
  for (int m = 0; m < MT; m++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float total = sum[m][half];
      total += __shfl_xor_sync(ALL_LANES, total, 1);
      total += __shfl_xor_sync(ALL_LANES, total, 2);
      int query = first + row + m * 16 + half * 8 + (lane >> 2);
      if (log_sums && (lane & 3) == 0 && query < a.queries) log_sums[stats + query] = top[m][half] * a.scale + logf(total);
      sum[m][half] = 1.0f / total;
    }
  u16* to = o + (u64)b * a.queries * a.ld_o + h * a.channels;
  store_rows<CP, MT>(to, a.ld_o, first, row, a.queries, a.channels, qs, out, sum);
}

// delta [B, H, T_q] = the sum over the channels of o * d_o; 16 lanes a row of a head, `rows` = B*T_q.
KERNEL(flash_delta, (const u16* o, const u16* d_o, float* delta, u32 rows, u32 queries, u32 heads, u32 channels, u32 ld)) {
  u64 item = thread_number() / 16;
  u32 lane = threadIdx.x & 15, h = (u32)(item % heads);
  u64 row = item / heads;
  float sum = 0.0f;
  if (row < rows && lane * 8 < channels) {
    u64 at = row * ld + h * channels + lane * 8;
    Line x = *(const Line*)(o + at), y = *(const Line*)(d_o + at);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      sum += of_bf16((u16)x.w[i]) * of_bf16((u16)y.w[i]);
      sum += of_bf16((u16)(x.w[i] >> 16)) * of_bf16((u16)(y.w[i] >> 16));
    }
  }
#pragma unroll
  for (int step = 8; step; step >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, step);
  if (row < rows && lane == 0) delta[(row / queries * heads + h) * queries + row % queries] = sum;
}

// dk and dv, replaced; delta is that of flash_delta. A block takes 64 MT keys of a head and streams queries:
// grid (tiles, H, B). Everything is transposed, a row of a warp's registers is a key.
template <int CP, int MT, int BQ>
DEV void flash_backward_keys(const u16* q, const u16* k, const u16* v, const u16* d_o, const float* log_sums,
                                 const float* delta, u16* dk, u16* dv, const Attention& a) {
  const int P = CP + 8, BM = 64 * MT, TILE = BQ * P, STAGE = 2 * TILE + 4 * BQ;
  DYN_SHARED(u16, smem);
  u16 *ks = smem, *vs = smem + BM * P, *stages = smem + 2 * BM * P;
  int lane = threadIdx.x & 31, row = (threadIdx.x >> 5) * 16 * MT;
  int first = blockIdx.x * BM, h = blockIdx.y, b = blockIdx.z;
  u64 at_q = (u64)b * a.queries * a.ld_q + h * a.channels, at_o = (u64)b * a.queries * a.ld_o + h * a.channels;
  u64 at_k = (u64)b * a.key_stride * a.ld_k + h * a.channels, at_v = (u64)b * a.key_stride * a.ld_v + h * a.channels;
  log_sums += ((u64)b * a.heads + h) * a.queries;
  delta += ((u64)b * a.heads + h) * a.queries;
  int stat = threadIdx.x;
  float ahead;
  auto load = [&](int j) {
    u16* to = stages + (j & 1) * STAGE;
    load_tile<BQ, CP>(to, q + at_q, a.ld_q, j * BQ, a.queries, a.channels);
    load_tile<BQ, CP>(to + TILE, d_o + at_o, a.ld_o, j * BQ, a.queries, a.channels);
    cp_commit();
    // Too small a piece for an asynchronous copy: it waits in a register until the stage is used.
    int query = j * BQ + stat % BQ;
    ahead = stat < 2 * BQ && query < a.queries ? (stat < BQ ? log_sums : delta)[query] : 0.0f;
  };
  // The first query that sees the first key of this tile.
  int from = a.causal ? first - (a.keys - a.queries) : 0;
  int start = from > 0 ? from / BQ : 0, blocks = (a.queries + BQ - 1) / BQ;
  load_tile<BM, CP>(ks, k + at_k, a.ld_k, first, a.keys, a.channels);
  load_tile<BM, CP>(vs, v + at_v, a.ld_v, first, a.keys, a.channels);
  load(start);
  const float scale2 = a.scale * LOG2E;
  float grad_k[MT][CP / 8][4], grad_v[MT][CP / 8][4];
  clear<MT, CP / 8>(grad_k);
  clear<MT, CP / 8>(grad_v);
  for (int j = start; j < blocks; j++) {
    if (stat < 2 * BQ) ((float*)(stages + (j & 1) * STAGE + 2 * TILE))[stat] = ahead;
    cp_wait<0>();
    __syncthreads();  // stage j has landed, and nobody reads the other one any more
    if (j + 1 < blocks) load(j + 1);
    // The last query of the tile sees no key of this warp.
    if (first + row >= visible(a, j * BQ + BQ - 1)) continue;
    const u16 *qs = stages + (j & 1) * STAGE, *gs = qs + TILE;
    const float* stats = (const float*)(qs + 2 * TILE);
    float p[MT][BQ / 8][4], ds[MT][BQ / 8][4];
    scores<CP, MT, BQ>(p, ks, row, qs);
    bool edge = first + row + 16 * MT > visible(a, j * BQ);
#pragma unroll
    for (int n = 0; n < BQ / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        int i = n * 8 + (lane & 3) * 2 + (e & 1);
        float log_sum2 = stats[i] * LOG2E;
#pragma unroll
        for (int m = 0; m < MT; m++) {
          p[m][n][e] = fast_exp2(p[m][n][e] * scale2 - log_sum2);
          int key = first + row + m * 16 + (lane >> 2) + 8 * (e >> 1);
          if (edge && key >= visible(a, j * BQ + i)) p[m][n][e] = 0.0f;
        }
      }
    accumulate<CP, MT, BQ>(grad_v, p, gs);
    scores<CP, MT, BQ>(ds, vs, row, gs);
#pragma unroll
    for (int n = 0; n < BQ / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        float inner = stats[BQ + n * 8 + (lane & 3) * 2 + (e & 1)];
#pragma unroll
        for (int m = 0; m < MT; m++) ds[m][n][e] = p[m][n][e] * (ds[m][n][e] - inner);
      }
    accumulate<CP, MT, BQ>(grad_k, ds, qs);
  }
  float scaled[MT][2], one[MT][2];
#pragma unroll
  for (int m = 0; m < MT; m++) scaled[m][0] = scaled[m][1] = a.scale, one[m][0] = one[m][1] = 1.0f;
  store_rows<CP, MT>(dk + at_k, a.ld_k, first, row, a.keys, a.channels, ks, grad_k, scaled);
  store_rows<CP, MT>(dv + at_v, a.ld_v, first, row, a.keys, a.channels, vs, grad_v, one);
}

// dq, replaced. A block takes 64 MT queries of a head and streams keys: grid (tiles, H, B).
template <int CP, int MT, int BN>
DEV void flash_backward_queries(const u16* q, const u16* k, const u16* v, const u16* d_o, const float* log_sums,
                                    const float* delta, u16* dq, const Attention& a) {
  const int P = CP + 8, BM = 64 * MT, TILE = BN * P;
  DYN_SHARED(u16, smem);
  u16 *qs = smem, *gs = smem + BM * P, *stages = smem + 2 * BM * P;
  int lane = threadIdx.x & 31, row = (threadIdx.x >> 5) * 16 * MT;
  int first = (int)(gridDim.x - 1 - blockIdx.x) * BM, h = blockIdx.y, b = blockIdx.z;
  u64 at_q = (u64)b * a.queries * a.ld_q + h * a.channels;
  k += (u64)b * a.key_stride * a.ld_k + h * a.channels;
  v += (u64)b * a.key_stride * a.ld_v + h * a.channels;
  int last = first + BM < a.queries ? first + BM : a.queries;
  int blocks = (visible(a, last - 1) + BN - 1) / BN;
  auto load = [&](int j) {
    u16* to = stages + (j & 1) * 2 * TILE;
    load_tile<BN, CP>(to, k, a.ld_k, j * BN, a.keys, a.channels);
    load_tile<BN, CP>(to + TILE, v, a.ld_v, j * BN, a.keys, a.channels);
    cp_commit();
  };
  load_tile<BM, CP>(qs, q + at_q, a.ld_q, first, a.queries, a.channels);
  load_tile<BM, CP>(gs, d_o + (u64)b * a.queries * a.ld_o + h * a.channels, a.ld_o, first, a.queries, a.channels);
  load(0);
  const float scale2 = a.scale * LOG2E;
  u64 stats = ((u64)b * a.heads + h) * a.queries;
  float log_sum2[MT][2], inner[MT][2], grad[MT][CP / 8][4];
  clear<MT, CP / 8>(grad);
#pragma unroll
  for (int m = 0; m < MT; m++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int query = first + row + m * 16 + half * 8 + (lane >> 2);
      log_sum2[m][half] = query < a.queries ? log_sums[stats + query] * LOG2E : 0.0f;
      inner[m][half] = query < a.queries ? delta[stats + query] : 0.0f;
    }
  for (int j = 0; j < blocks; j++) {
    cp_wait<0>();
    __syncthreads();  // stage j has landed, and nobody reads the other one any more
    if (j + 1 < blocks) load(j + 1);
    if (j * BN >= visible(a, first + row + 16 * MT - 1)) continue;
    const u16* ks = stages + (j & 1) * 2 * TILE;
    float p[MT][BN / 8][4], ds[MT][BN / 8][4];
    scores<CP, MT, BN>(p, qs, row, ks);
    scores<CP, MT, BN>(ds, gs, row, ks + TILE);
    bool edge = (j + 1) * BN > visible(a, first + row);
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
      for (int n = 0; n < BN / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
          float x = fast_exp2(p[m][n][e] * scale2 - log_sum2[m][e >> 1]);
          int key = j * BN + n * 8 + (lane & 3) * 2 + (e & 1), query = first + row + m * 16 + (lane >> 2) + 8 * (e >> 1);
          if (edge && key >= visible(a, query)) x = 0.0f;
          ds[m][n][e] = x * (ds[m][n][e] - inner[m][e >> 1]);
        }
    accumulate<CP, MT, BN>(grad, ds, ks);
  }
  float factor[MT][2];
#pragma unroll
  for (int m = 0; m < MT; m++) factor[m][0] = factor[m][1] = a.scale;
  store_rows<CP, MT>(dq + at_q, a.ld_q, first, row, a.queries, a.channels, qs, grad, factor);
}

// The kernels for CP channels: tile of rows / 64, rows streamed at a time. Shared memory, in bytes, with P = 2 (CP + 8)
// bytes a row: forward P (64 MT + 4 BN), keys P (128 MT + 4 BQ) + 16 BQ, queries P (128 MT + 4 BN), all below the 99 KiB
// of the smallest architecture. `flash.rs` has the same table.
#define SIZES u32 queries, u32 keys, u32 key_stride, u32 heads, u32 channels, u32 causal, u32 ld_q, u32 ld_k, u32 ld_v, u32 ld_o, float scale
#define ATTENTION {(int)queries, (int)keys, (int)key_stride, (int)heads, (int)channels, (int)causal, (int)ld_q, (int)ld_k, (int)ld_v, (int)ld_o, scale}
#define FORWARD (const u16* q, const u16* k, const u16* v, u16* o, float* log_sums, SIZES)
#define KEYS (const u16* q, const u16* k, const u16* v, const u16* d_o, const float* log_sums, const float* delta, u16* dk, u16* dv, SIZES)
#define QUERIES (const u16* q, const u16* k, const u16* v, const u16* d_o, const float* log_sums, const float* delta, u16* dq, SIZES)
#define RUN_FORWARD(CP, MT, BN) { Attention a = ATTENTION; flash_forward<CP, MT, BN>(q, k, v, o, log_sums, a); }
#define RUN_KEYS(CP, MT, BQ) { Attention a = ATTENTION; flash_backward_keys<CP, MT, BQ>(q, k, v, d_o, log_sums, delta, dk, dv, a); }
#define RUN_QUERIES(CP, MT, BN) { Attention a = ATTENTION; flash_backward_queries<CP, MT, BN>(q, k, v, d_o, log_sums, delta, dq, a); }
KERNEL_BOUNDED(flash_forward_32, 128, 2, FORWARD) RUN_FORWARD(32, 2, 64)
KERNEL_BOUNDED(flash_forward_64, 128, 2, FORWARD) RUN_FORWARD(64, 2, 64)
KERNEL_BOUNDED(flash_forward_80, 128, 2, FORWARD) RUN_FORWARD(80, 2, 64)
KERNEL_BOUNDED(flash_forward_96, 128, 2, FORWARD) RUN_FORWARD(96, 2, 32)
KERNEL_BOUNDED(flash_forward_128, 128, 2, FORWARD) RUN_FORWARD(128, 2, 32)
KERNEL_BOUNDED(flash_backward_keys_32, 128, 2, KEYS) RUN_KEYS(32, 2, 32)
KERNEL_BOUNDED(flash_backward_keys_64, 128, 2, KEYS) RUN_KEYS(64, 2, 32)
KERNEL_BOUNDED(flash_backward_keys_80, 128, 2, KEYS) RUN_KEYS(80, 1, 32)
KERNEL_BOUNDED(flash_backward_keys_96, 128, 2, KEYS) RUN_KEYS(96, 1, 32)
KERNEL_BOUNDED(flash_backward_keys_128, 128, 2, KEYS) RUN_KEYS(128, 1, 32)
KERNEL_BOUNDED(flash_backward_queries_32, 128, 2, QUERIES) RUN_QUERIES(32, 2, 64)
KERNEL_BOUNDED(flash_backward_queries_64, 128, 2, QUERIES) RUN_QUERIES(64, 2, 32)
KERNEL_BOUNDED(flash_backward_queries_80, 128, 2, QUERIES) RUN_QUERIES(80, 1, 64)
KERNEL_BOUNDED(flash_backward_queries_96, 128, 3, QUERIES) RUN_QUERIES(96, 1, 32)
KERNEL_BOUNDED(flash_backward_queries_128, 128, 3, QUERIES) RUN_QUERIES(128, 1, 32)
