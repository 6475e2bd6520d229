//! What 200 means: whether a commit is on the disk of one server, or of two.

/// Where a decision must be before it is answered with 200.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, strum::EnumString, strum::IntoStaticStr, strum::VariantNames,
)]
#[strum(serialize_all = "lowercase")]
pub enum Durability {
    /// On the disk of the primary. A failover loses what its standbys do not have yet.
    #[default]
    Primary,
    /// On the disk of a synchronous standby as well.
    Standby,
}

impl Durability {
    /// The words of the configuration.
    pub const WORDS: &'static [&'static str] = <Self as strum::VariantNames>::VARIANTS;

    /// The word of the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What is demanded of the server before anything is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demands {
    /// Where a decision must be.
    pub durability: Durability,
    /// `fsync = off` is accepted: some managed storage is durable without it.
    pub trust_storage: bool,
}

impl Demands {
    pub(super) fn needs_standby(self) -> bool {
        self.durability == Durability::Standby
    }
}
