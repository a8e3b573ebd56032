//! The `tokenformer` command line.

fn main() {}
