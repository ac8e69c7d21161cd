//! Why a file is no bundle.

/// Why a file is no bundle, or none can be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// It is larger than any bundle.
    #[error("it is larger than {} MiB", super::archive::MAX_BUNDLE / 1024 / 1024)]
    TooLarge,
    /// It is no tar archive, or a damaged one.
    #[error("it is no readable tar archive: {0}")]
    Archive(String),
    /// The first member is something else.
    #[error("its first member is not `manifest.json`; make bundles with `egressctl bundle create`")]
    NoManifest,
    /// The manifest cannot be understood.
    #[error("its manifest cannot be understood: {0}")]
    Manifest(String),
    /// A member is not what the manifest says.
    #[error("`{name}`: {problem}")]
    Member {
        /// The member's name.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
}
