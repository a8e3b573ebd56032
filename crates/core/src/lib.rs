//! tokenformer-core
