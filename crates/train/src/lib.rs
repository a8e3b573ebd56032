//! tokenformer-train
