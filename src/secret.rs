//! Values that must never be shown.
//!
//! INVARIANT 6: a secret is never in `Debug`, a log line, a metric label, an error message or a console page. Secrets
//! are held as [`Secret`] from the moment they are read. The few places that need the text call [`Secret::expose`],
//! which is easy to search for.

use std::{fmt, sync::Arc};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret text. `Debug` prints `[redacted]`; there is no `Display` and no serialization.
///
/// Clones share one text, which is zeroized when the last clone is dropped. This limits what a core dump or a swapped
/// page can contain.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Wraps a text. The caller must zeroize its own copy, if any.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// Returns the text. Never pass it to a log, an error or an answer.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True if the text is empty. No key or token may be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares with `other` in time that depends only on the lengths.
    #[must_use]
    pub fn equals(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_secret() {
        let secret = Secret::new("fake-token");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "[redacted] Some([redacted])");
        assert!(secret.equals("fake-token") && !secret.equals("fake-tokeN") && !secret.equals(""));
        assert!(!secret.is_empty() && Secret::new("").is_empty());
        assert!(std::ptr::eq(secret.expose(), secret.clone().expose()), "there is one text");
    }
}
