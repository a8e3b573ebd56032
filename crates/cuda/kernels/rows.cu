// Rows: sums over them, rows by index, caches, LayerNorm, rotary embedding.

// Sums of the columns of a part of the rows: block (c, p) sums the 32 columns from 32·c on, over rows p·part_rows and
// the following. 256 threads, 8 rows at a time. `value(row, column)` is what is summed; `sums` has 256 places.
template <class F> DEV void sum_columns(F value, float* partial, u32 rows, u32 width, u32 part_rows, float* sums) {
  u32 column = blockIdx.x * 32 + (threadIdx.x & 31);
  u32 first = blockIdx.y * part_rows, end = least(first + part_rows, rows);
  float sum = 0;
  if (column < width)
    for (u32 row = first + (threadIdx.x >> 5); row < end; row += 8) sum += value(row, column);
  __syncthreads();  // the places may still be read
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x < 32 && column < width) {
    sum = 0;
    for (u32 i = 0; i < 8; i++) sum += sums[i * 32 + threadIdx.x];
    partial[(u64)blockIdx.y * width + column] = sum;
  }
}
template <class T> DEV void sum_rows_part(const T* x, float* partial, u32 rows, u32 width, u32 part_rows, float* sums) {
  sum_columns(LAMBDA(u32 row, u32 column) { return load(x, (u64)row * width + column); }, partial, rows, width, part_rows, sums);
}
KERNEL(sum_rows_f32, (const float* x, float* partial, u32 rows, u32 width, u32 part_rows)) {
  __shared__ float sums[256];
  sum_rows_part(x, partial, rows, width, part_rows, sums);
}
KERNEL(sum_rows_bf16, (const u16* x, float* partial, u32 rows, u32 width, u32 part_rows)) {
  __shared__ float sums[256];
  sum_rows_part(x, partial, rows, width, part_rows, sums);
}

// to += the sum of `parts` rows of `width`.
KERNEL(add_parts_f32, (const float* partial, float* to, u32 parts, u32 width)) {
  u64 column = thread_number();
  if (column >= width) return;
  float sum = 0;
  for (u32 i = 0; i < parts; i++) sum += partial[(u64)i * width + column];
  to[column] += sum;
}

// y = rows `index` of the table.
template <class T, class U> DEV void gather(const T* table, const u32* index, U* y, u64 n, u32 width) {
  u64 i = thread_number();
  if (i < n) store(y, i, load(table, (u64)index[i / width] * width + i % width));
}
KERNEL(gather_rows_f32_f32, (const float* table, const u32* index, float* y, u64 n, u32 width)) { gather(table, index, y, n, width); }
KERNEL(gather_rows_f32_bf16, (const float* table, const u32* index, u16* y, u64 n, u32 width)) { gather(table, index, y, n, width); }
KERNEL(gather_rows_bf16_f32, (const u16* table, const u32* index, float* y, u64 n, u32 width)) { gather(table, index, y, n, width); }
KERNEL(gather_rows_bf16_bf16, (const u16* table, const u32* index, u16* y, u64 n, u32 width)) { gather(table, index, y, n, width); }

// Adds rows of dy to rows `index` of a table, in the order of the rows and without atomics, so that the sums have the
// same bits in every run. The block of the first row of an index adds all rows with that index; the other blocks end.
// 256 threads; `found` has 8 places.
template <class T, class U>
DEV void scatter_add(const u32* index, const T* dy, U* table, u32 rows, u32 width, u32* found) {
  u32 first = blockIdx.x, wanted = index[first], lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  u32 earlier = 0;
  for (u32 row = threadIdx.x; row < first; row += blockDim.x) earlier |= index[row] == wanted;
  earlier = __ballot_sync(ALL_LANES, earlier);
  if (lane == 0) found[warp] = earlier;
  __syncthreads();
  for (u32 i = 0; i < 8; i++) earlier |= found[i];
  if (earlier) return;  // the same in all threads
  U* to = table + (u64)wanted * width;
  for (u32 start = first; start < rows; start += 256) {
    u32 row = start + threadIdx.x;
    u32 same = __ballot_sync(ALL_LANES, row < rows && index[row] == wanted);
    __syncthreads();  // the places may still be read
    if (lane == 0) found[warp] = same;
    __syncthreads();
    for (u32 column = threadIdx.x; column < width; column += 256) {
      float sum = load(to, column);
      for (u32 i = 0; i < 8; i++)
        for (u32 left = found[i]; left; left &= left - 1)
          sum += load(dy, (u64)(start + i * 32 + __ffs(left) - 1) * width + column);
      store(to, column, sum);
    }
  }
}
KERNEL(scatter_add_f32_f32, (const u32* index, const float* dy, float* table, u32 rows, u32 width)) {
  __shared__ u32 found[8];
  scatter_add(index, dy, table, rows, width, found);
}
KERNEL(scatter_add_f32_bf16, (const u32* index, const float* dy, u16* table, u32 rows, u32 width)) {
  __shared__ u32 found[8];
  scatter_add(index, dy, table, rows, width, found);
}
KERNEL(scatter_add_bf16_f32, (const u32* index, const u16* dy, float* table, u32 rows, u32 width)) {
  __shared__ u32 found[8];
  scatter_add(index, dy, table, rows, width, found);
}
KERNEL(scatter_add_bf16_bf16, (const u32* index, const u16* dy, u16* table, u32 rows, u32 width)) {
  __shared__ u32 found[8];
  scatter_add(index, dy, table, rows, width, found);
}

// Copies rows [B·length, width] to positions at.. of a cache [B, capacity, width].
template <class T> DEV void store_rows_each(const T* rows, T* cache, u64 n, u32 length, u32 width, u32 at, u32 capacity) {
  u64 i = thread_number();
  if (i >= n) return;
  u64 row = i / width, b = row / length, position = at + row % length;
  cache[(b * capacity + position) * width + i % width] = rows[i];
}
KERNEL(store_rows_f32, (const float* rows, float* cache, u64 n, u32 length, u32 width, u32 at, u32 capacity)) { store_rows_each(rows, cache, n, length, width, at, capacity); }
KERNEL(store_rows_bf16, (const u16* rows, u16* cache, u64 n, u32 length, u32 width, u32 at, u32 capacity)) { store_rows_each(rows, cache, n, length, width, at, capacity); }

// LayerNorm of a row, a block each; gain and bias may be null. stats: mean and 1/std. `part` has 32 places.
template <class T>
DEV void layer_norm_row(const T* x, const float* gain, const float* bias, T* y, float* stats, u32 width, float eps, float* part) {
  u64 first = (u64)blockIdx.x * width;
  float sum = 0, squares = 0;
  for (u32 i = threadIdx.x; i < width; i += blockDim.x) sum += load(x, first + i);
  float mean = block_sum(sum, part) / width;
  for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
    float off = load(x, first + i) - mean;
    squares += off * off;
  }
  float rstd = 1.0f / sqrtf(block_sum(squares, part) / width + eps);
  for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
    float unit = (load(x, first + i) - mean) * rstd;
    store(y, first + i, gain ? unit * gain[i] + bias[i] : unit);
  }
  if (threadIdx.x == 0) {
    stats[2 * blockIdx.x] = mean;
    stats[2 * blockIdx.x + 1] = rstd;
  }
}
KERNEL(layer_norm_f32, (const float* x, const float* gain, const float* bias, float* y, float* stats, u32 width, float eps)) {
  __shared__ float part[32];
  layer_norm_row(x, gain, bias, y, stats, width, eps, part);
}
KERNEL(layer_norm_bf16, (const u16* x, const float* gain, const float* bias, u16* y, float* stats, u32 width, float eps)) {
  __shared__ float part[32];
  layer_norm_row(x, gain, bias, y, stats, width, eps, part);
}

// Gradient of LayerNorm by its input. `kept` is the norm's input, or its output if there was no gain.
template <class T>
DEV void layer_norm_backward_row(const T* kept, u32 kept_is_input, const float* stats, const float* gain, const T* dy, T* dx,
                                 u32 adds, u32 width, float* part) {
  u64 first = (u64)blockIdx.x * width;
  float mean = stats[2 * blockIdx.x], rstd = stats[2 * blockIdx.x + 1], sum = 0, inner = 0;
  for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
    float unit = load(kept, first + i), du = load(dy, first + i);
    if (kept_is_input) unit = (unit - mean) * rstd;
    if (gain) du *= gain[i];
    sum += du;
    inner += du * unit;
  }
  sum = block_sum(sum, part) / width;
  inner = block_sum(inner, part) / width;
  for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
    float unit = load(kept, first + i), du = load(dy, first + i);
    if (kept_is_input) unit = (unit - mean) * rstd;
    if (gain) du *= gain[i];
    float d = rstd * (du - sum - unit * inner);
    store(dx, first + i, adds ? load(dx, first + i) + d : d);
  }
}
KERNEL(layer_norm_backward_f32, (const float* kept, u32 kept_is_input, const float* stats, const float* gain, const float* dy, float* dx, u32 adds, u32 width)) {
  __shared__ float part[32];
  layer_norm_backward_row(kept, kept_is_input, stats, gain, dy, dx, adds, width, part);
}
KERNEL(layer_norm_backward_bf16, (const u16* kept, u32 kept_is_input, const float* stats, const float* gain, const u16* dy, u16* dx, u32 adds, u32 width)) {
  __shared__ float part[32];
  layer_norm_backward_row(kept, kept_is_input, stats, gain, dy, dx, adds, width, part);
}

// Sums over a part of the rows for the gradients of gain and bias, as in sum_rows.
template <class T>
DEV void layer_norm_affine_part(const T* x, const float* stats, const T* dy, float* d_gain, float* d_bias, u32 rows, u32 width,
                                u32 part_rows, float* sums) {
  sum_columns(LAMBDA(u32 row, u32 column) {
    u64 i = (u64)row * width + column;
    return load(dy, i) * (load(x, i) - stats[2 * row]) * stats[2 * row + 1];
  }, d_gain, rows, width, part_rows, sums);
  sum_columns(LAMBDA(u32 row, u32 column) { return load(dy, (u64)row * width + column); }, d_bias, rows, width, part_rows, sums);
}
KERNEL(layer_norm_affine_f32, (const float* x, const float* stats, const float* dy, float* d_gain, float* d_bias, u32 rows, u32 width, u32 part_rows)) {
  __shared__ float sums[256];
  layer_norm_affine_part(x, stats, dy, d_gain, d_bias, rows, width, part_rows, sums);
}
KERNEL(layer_norm_affine_bf16, (const u16* x, const float* stats, const u16* dy, float* d_gain, float* d_bias, u32 rows, u32 width, u32 part_rows)) {
  __shared__ float sums[256];
  layer_norm_affine_part(x, stats, dy, d_gain, d_bias, rows, width, part_rows, sums);
}

// Rotary embedding in place: a thread turns a pair of channels. `sign` is -1 in the backward pass.
template <class T>
DEV void rotate_pair(T* x, const float* cosines, const float* sines, u64 pairs, u32 half, u32 heads, u32 channels, u32 length,
                     u32 first, float sign) {
  u64 pair = thread_number();
  if (pair >= pairs) return;
  u32 i = pair % half, head = pair / half % heads;
  u64 row = pair / half / heads, at = (row * heads + head) * channels + i;
  u64 angle = (u64)(first + row % length) * half + i;
  float c = cosines[angle], s = sign * sines[angle], a = load(x, at), b = load(x, at + half);
  store(x, at, a * c - b * s);
  store(x, at + half, b * c + a * s);
}
KERNEL(rotate_f32, (float* x, const float* cosines, const float* sines, u64 pairs, u32 half, u32 heads, u32 channels, u32 length, u32 first, float sign)) { rotate_pair(x, cosines, sines, pairs, half, heads, channels, length, first, sign); }
KERNEL(rotate_bf16, (u16* x, const float* cosines, const float* sines, u64 pairs, u32 half, u32 heads, u32 channels, u32 length, u32 first, float sign)) { rotate_pair(x, cosines, sines, pairs, half, heads, channels, length, first, sign); }
