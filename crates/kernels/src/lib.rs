//! tokenformer-kernels
