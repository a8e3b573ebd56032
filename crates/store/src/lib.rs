//! tokenformer-store
