//! tokenformer-data
