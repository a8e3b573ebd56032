// Softmax attention between tokens, for every head size and type: a warp works for one query (or, for the gradients of keys
// and values, for one key). Sums are in f32 and in a fixed order: a query has the same bits alone and in a batch.
// Tiles of tensor cores are in another file; this one serves f32, decoding and head sizes that those do not have.

struct Sizes {
  u32 queries, keys, key_stride, heads, channels, causal;
  float scale;
  u32 batch, head;  // of this block
};
// Blocks are (batch, heads, positions / warps) along one axis, since the others end at 65535. Positions are those of queries; a
// backward pass has as many keys.
DEV u32 warps() { return blockDim.x >> 5; }
DEV u32 blocks_of_head(u32 queries) { return (queries + warps() - 1) / warps(); }
DEV Sizes sizes(u32 queries, u32 keys, u32 key_stride, u32 heads, u32 channels, u32 causal, float scale) {
  u32 head = blockIdx.x / blocks_of_head(queries);
  Sizes s = {queries, keys, key_stride, heads, channels, causal, scale, head / heads, head % heads};
  return s;
}
// The position that this warp works for.
DEV u32 position(const Sizes& s) { return blockIdx.x % blocks_of_head(s.queries) * warps() + (threadIdx.x >> 5); }
DEV u32 visible_keys(const Sizes& s, u32 query) { return s.causal ? s.keys - s.queries + query + 1 : s.keys; }
// The first channel of a head at a query's or a key's position.
DEV u64 query_at(const Sizes& s, u32 query) {
  return (((u64)s.batch * s.queries + query) * s.heads + s.head) * s.channels;
}
DEV u64 key_at(const Sizes& s, u32 key) {
  return (((u64)s.batch * s.key_stride + key) * s.heads + s.head) * s.channels;
}
DEV u64 stat_at(const Sizes& s, u32 query) { return ((u64)s.batch * s.heads + s.head) * s.queries + query; }
template <class T> DEV float inner_product(const float* a, const T* b, u64 at, u32 channels) {
  float sum = 0;
  for (u32 c = 0; c < channels; c++) sum += a[c] * load(b, at + c);
  return sum;
}

// `own`: the warp's shared memory, 2·channels + 32 numbers.
template <class T>
DEV void attend(const T* q, const T* k, const T* v, T* o, float* log_sums, const Sizes& s, u32 query, float* own) {
  u32 lane = threadIdx.x & 31, end = visible_keys(s, query);
  float *mine = own, *sum_of = own + s.channels, *p = sum_of + s.channels;
  for (u32 c = lane; c < s.channels; c += 32) {
    mine[c] = load(q, query_at(s, query) + c);
    sum_of[c] = 0;
  }
  __syncwarp();
  float largest = -INFINITY, sum = 0;
  for (u32 start = 0; start < end; start += 32) {
    u32 key = start + lane;
    float score = key < end ? s.scale * inner_product(mine, k, key_at(s, key), s.channels) : -INFINITY;
    float higher = fmaxf(largest, warp_max(score)), kept = expf(largest - higher), weight = expf(score - higher);
    sum = sum * kept + warp_sum(weight);
    largest = higher;
    p[lane] = weight;
    __syncwarp();
    u32 count = least(32, end - start);
    for (u32 c = lane; c < s.channels; c += 32) {
      float x = sum_of[c] * kept;
      for (u32 j = 0; j < count; j++) x += p[j] * load(v, key_at(s, start + j) + c);
      sum_of[c] = x;
    }
    __syncwarp();
  }
  for (u32 c = lane; c < s.channels; c += 32) store(o, query_at(s, query) + c, sum_of[c] / sum);
  if (log_sums && lane == 0) log_sums[stat_at(s, query)] = largest + logf(sum);
}

// The inner product of an output with its gradient, per head and query.
template <class T> DEV void output_inner(const T* o, const T* d_o, float* inner, const Sizes& s, u32 query) {
  u32 lane = threadIdx.x & 31;
  u64 at = query_at(s, query);
  float sum = 0;
  for (u32 c = lane; c < s.channels; c += 32) sum += load(o, at + c) * load(d_o, at + c);
  sum = warp_sum(sum);
  if (lane == 0) inner[stat_at(s, query)] = sum;
}

// `own`: 3·channels + 32 numbers.
template <class T>
DEV void query_gradient(const T* q, const T* k, const T* v, const T* d_o, const float* log_sums, const float* inner, T* dq,
                        const Sizes& s, u32 query, float* own) {
  u32 lane = threadIdx.x & 31, end = visible_keys(s, query);
  float *mine = own, *d_out = own + s.channels, *sum_of = d_out + s.channels, *ds = sum_of + s.channels;
  for (u32 c = lane; c < s.channels; c += 32) {
    mine[c] = load(q, query_at(s, query) + c);
    d_out[c] = load(d_o, query_at(s, query) + c);
    sum_of[c] = 0;
  }
  __syncwarp();
  float log_sum = log_sums[stat_at(s, query)], of_output = inner[stat_at(s, query)];
  for (u32 start = 0; start < end; start += 32) {
    u32 key = start + lane;
    float d = 0;
    if (key < end) {
      float p = expf(s.scale * inner_product(mine, k, key_at(s, key), s.channels) - log_sum);
      d = p * (inner_product(d_out, v, key_at(s, key), s.channels) - of_output) * s.scale;
    }
    ds[lane] = d;
    __syncwarp();
    u32 count = least(32, end - start);
    for (u32 c = lane; c < s.channels; c += 32) {
      float x = sum_of[c];
      for (u32 j = 0; j < count; j++) x += ds[j] * load(k, key_at(s, start + j) + c);
      sum_of[c] = x;
    }
    __syncwarp();
  }
  for (u32 c = lane; c < s.channels; c += 32) store(dq, query_at(s, query) + c, sum_of[c]);
}

// `own`: 4·channels + 64 numbers.
template <class T>
DEV void key_gradient(const T* q, const T* k, const T* v, const T* d_o, const float* log_sums, const float* inner, T* dk, T* dv,
                      const Sizes& s, u32 key, float* own) {
  u32 lane = threadIdx.x & 31, channels = s.channels;
  float *mine = own, *value = own + channels, *of_k = value + channels, *of_v = of_k + channels;
  float *p = of_v + channels, *ds = p + 32;
  for (u32 c = lane; c < channels; c += 32) {
    mine[c] = load(k, key_at(s, key) + c);
    value[c] = load(v, key_at(s, key) + c);
    of_k[c] = 0;
    of_v[c] = 0;
  }
  __syncwarp();
  u32 first = s.causal ? key / 32 * 32 : 0;
  for (u32 start = first; start < s.queries; start += 32) {
    u32 query = start + lane;
    float weight = 0, d = 0;
    if (query < s.queries && key < visible_keys(s, query)) {
      weight = expf(s.scale * inner_product(mine, q, query_at(s, query), channels) - log_sums[stat_at(s, query)]);
      d = weight * (inner_product(value, d_o, query_at(s, query), channels) - inner[stat_at(s, query)]) * s.scale;
    }
    p[lane] = weight;
    ds[lane] = d;
    __syncwarp();
    u32 count = least(32, s.queries - start);
    for (u32 c = lane; c < channels; c += 32) {
      float a = of_k[c], b = of_v[c];
      for (u32 j = 0; j < count; j++) {
        u64 at = query_at(s, start + j) + c;
        a += ds[j] * load(q, at);
        b += p[j] * load(d_o, at);
      }
      of_k[c] = a;
      of_v[c] = b;
    }
    __syncwarp();
  }
  for (u32 c = lane; c < channels; c += 32) {
    store(dk, key_at(s, key) + c, of_k[c]);
    store(dv, key_at(s, key) + c, of_v[c]);
  }
}

KERNEL(attention_rows_f32, (const float* q, const float* k, const float* v, float* o, float* log_sums, u32 queries, u32 keys, u32 key_stride, u32 heads, u32 channels, u32 causal, float scale)) {
  DYN_SHARED(float, memory);
  Sizes s = sizes(queries, keys, key_stride, heads, channels, causal, scale);
  u32 query = position(s);
  if (query < queries) attend(q, k, v, o, log_sums, s, query, memory + (threadIdx.x >> 5) * (2 * channels + 32));
}
KERNEL(attention_rows_bf16, (const u16* q, const u16* k, const u16* v, u16* o, float* log_sums, u32 queries, u32 keys, u32 key_stride, u32 heads, u32 channels, u32 causal, float scale)) {
  DYN_SHARED(float, memory);
  Sizes s = sizes(queries, keys, key_stride, heads, channels, causal, scale);
  u32 query = position(s);
  if (query < queries) attend(q, k, v, o, log_sums, s, query, memory + (threadIdx.x >> 5) * (2 * channels + 32));
}
KERNEL(attention_rows_inner_f32, (const float* o, const float* d_o, float* inner, u32 queries, u32 heads, u32 channels)) {
  Sizes s = sizes(queries, queries, queries, heads, channels, 0, 0);
  u32 query = position(s);
  if (query < queries) output_inner(o, d_o, inner, s, query);
}
KERNEL(attention_rows_inner_bf16, (const u16* o, const u16* d_o, float* inner, u32 queries, u32 heads, u32 channels)) {
  Sizes s = sizes(queries, queries, queries, heads, channels, 0, 0);
  u32 query = position(s);
  if (query < queries) output_inner(o, d_o, inner, s, query);
}
KERNEL(attention_rows_query_gradient_f32, (const float* q, const float* k, const float* v, const float* d_o, const float* log_sums, const float* inner, float* dq, u32 length, u32 heads, u32 channels, u32 causal, float scale)) {
  DYN_SHARED(float, memory);
  Sizes s = sizes(length, length, length, heads, channels, causal, scale);
  u32 query = position(s);
  if (query < length) query_gradient(q, k, v, d_o, log_sums, inner, dq, s, query, memory + (threadIdx.x >> 5) * (3 * channels + 32));
}
KERNEL(attention_rows_query_gradient_bf16, (const u16* q, const u16* k, const u16* v, const u16* d_o, const float* log_sums, const float* inner, u16* dq, u32 length, u32 heads, u32 channels, u32 causal, float scale)) {
  DYN_SHARED(float, memory);
  Sizes s = sizes(length, length, length, heads, channels, causal, scale);
  u32 query = position(s);
  if (query < length) query_gradient(q, k, v, d_o, log_sums, inner, dq, s, query, memory + (threadIdx.x >> 5) * (3 * channels + 32));
}
KERNEL(attention_rows_key_gradient_f32, (const float* q, const float* k, const float* v, const float* d_o, const float* log_sums, const float* inner, float* dk, float* dv, u32 length, u32 heads, u32 channels, u32 causal, float scale)) {
  DYN_SHARED(float, memory);
  Sizes s = sizes(length, length, length, heads, channels, causal, scale);
  u32 key = position(s);
  if (key < length) key_gradient(q, k, v, d_o, log_sums, inner, dk, dv, s, key, memory + (threadIdx.x >> 5) * (4 * channels + 64));
}
KERNEL(attention_rows_key_gradient_bf16, (const u16* q, const u16* k, const u16* v, const u16* d_o, const float* log_sums, const float* inner, u16* dk, u16* dv, u32 length, u32 heads, u32 channels, u32 causal, float scale)) {
  DYN_SHARED(float, memory);
  Sizes s = sizes(length, length, length, heads, channels, causal, scale);
  u32 key = position(s);
  if (key < length) key_gradient(q, k, v, d_o, log_sums, inner, dk, dv, s, key, memory + (threadIdx.x >> 5) * (4 * channels + 64));
}
