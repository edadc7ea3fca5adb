//! What can go wrong while a trace is analysed. Damage inside a trace is no error: it is counted and shown.

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What stops an analysis.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The trace cannot be read at all.
    #[error(transparent)]
    Format(#[from] bpfrec_format::Error),
    /// A result cannot be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A Parquet file cannot be written.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Columns do not fit together.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// What was asked for does not exist or makes no sense.
    #[error("{0}")]
    Asked(String),
}

impl Error {
    /// An error about what was asked for.
    pub fn asked(what: impl Into<String>) -> Self {
        Error::Asked(what.into())
    }
}
