//! tokenformer-report
