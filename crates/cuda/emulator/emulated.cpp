// All kernels as C++, and their launch by name. A file of kernels is a namespace, as it is a module on the GPU.
#include "cuda_emu.h"
#include "prelude.cuh"

// Builds with mutants of one file leave out the others that take long to compile.
#ifndef ONLY_TENSOR_CORES
namespace elementwise_cu {
#include "elementwise.cu"
}
namespace rows_cu {
#include "rows.cu"
}
namespace theta_cu {
#include "theta.cu"
}
namespace attention_rows_cu {
#include "attention_rows.cu"
}
namespace loss_cu {
#include "loss.cu"
}
namespace optimizer_cu {
#include "optimizer.cu"
}
#endif
#ifndef WITHOUT_FLASH_ATTENTION
namespace flash_attention_cu {
#include "flash_attention.cu"
}
#endif
#ifndef WITHOUT_GEMM
namespace gemm_cu {
#include "gemm.cu"
}
#endif

#ifdef EMULATED_MUTANTS
#include EMULATED_MUTANTS
#endif

// Runs a kernel. Returns null, or what was wrong; the text is valid until the next launch.
extern "C" __attribute__((visibility("default"))) const char* tokenformer_emulated_launch(
    const char* name, const unsigned* grid, const unsigned* block, size_t shared, void** args, const size_t* sizes,
    size_t count, unsigned seed) {
  const emu::Kernel* found = emu::find_kernel(name);
  if (!found) return "no such kernel";
  const emu::Kernel& kernel = *found;
  if (kernel.sizes.size() != count) return "wrong number of arguments";
  for (size_t i = 0; i < count; i++)
    if (kernel.sizes[i] != sizes[i]) return "an argument of the wrong size";
  if (emu::launch(grid, block, shared, seed, [&] { kernel.call(args); })) return nullptr;
  return emu::problem.c_str();
}
