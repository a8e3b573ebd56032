//! Helpers that several crates share: quoting outside text in messages, finding similar names, and files.
//!
//! ```
//! use tokenformer_base::{nearest, shown};
//!
//! assert_eq!(shown("a\u{1b}[2J"), r#""a\u{1b}[2J""#);
//! assert_eq!(nearest("widht", ["width", "layers"]), Some("width"));
//! ```

pub mod files;
mod names;
mod text;

pub use names::{nearest, similar};
pub use text::{near_list, shown, shown_shape};
