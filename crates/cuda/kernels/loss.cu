// Cross-entropy of rows of logits, which are replaced by their gradients. A block of 256 threads a row.

// Largest logit and sum of exponentials of a row, after the bias is added in place.
struct Softmax { float largest, sum; };
DEV Softmax row_softmax(float* row, const float* bias, u32 classes, float* part) {
  float largest = -INFINITY, sum = 0;
  for (u32 i = threadIdx.x; i < classes; i += blockDim.x) {
    if (bias) row[i] += bias[i];
    largest = fmaxf(largest, row[i]);
  }
  largest = block_max(largest, part);
  for (u32 i = threadIdx.x; i < classes; i += blockDim.x) sum += expf(row[i] - largest);
  return {largest, block_sum(sum, part)};
}

// Targets are classes. `gradient`: whether the logits are replaced by the gradients of weight · Σ losses.
KERNEL(loss_classes, (float* logits, const float* bias, const u32* targets, float* losses, u32 classes, float weight, u32 gradient)) {
  __shared__ float part[32];
  float* row = logits + (u64)blockIdx.x * classes;
  Softmax s = row_softmax(row, bias, classes, part);
  u32 target = targets[blockIdx.x];
  // All threads read the target's logit before one of them replaces it.
  float loss = s.largest + logf(s.sum) - row[target];
  __syncthreads();
  if (threadIdx.x == 0) losses[blockIdx.x] = loss;
  if (!gradient) return;
  for (u32 i = threadIdx.x; i < classes; i += blockDim.x)
    row[i] = weight * (expf(row[i] - s.largest) / s.sum - (i == target ? 1.0f : 0.0f));
}

// Targets are a weight per class.
KERNEL(loss_soft, (float* logits, const float* bias, const float* targets, float* losses, u32 classes, float weight, u32 gradient)) {
  __shared__ float part[32];
  float* row = logits + (u64)blockIdx.x * classes;
  const float* wanted = targets + (u64)blockIdx.x * classes;
  Softmax s = row_softmax(row, bias, classes, part);
  float log_sum = s.largest + logf(s.sum), loss = 0, total = 0;
  for (u32 i = threadIdx.x; i < classes; i += blockDim.x) {
    loss += wanted[i] * (log_sum - row[i]);
    total += wanted[i];
  }
  loss = block_sum(loss, part);
  total = block_sum(total, part);
  if (threadIdx.x == 0) losses[blockIdx.x] = loss;
  if (!gradient) return;
  for (u32 i = threadIdx.x; i < classes; i += blockDim.x)
    row[i] = weight * (total * (expf(row[i] - s.largest) / s.sum) - wanted[i]);
}
