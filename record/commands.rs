//! The commands that read a trace. Each takes its arguments and returns the exit code.

#[cfg(feature = "analyze")]
pub mod analyze;
pub mod info;
pub mod recover;
pub mod replay;
#[cfg(feature = "analyze")]
pub mod report;
pub mod verify;

/// Done.
pub const DONE: u8 = 0;
/// Done, but data was damaged or lost in the file.
pub const DAMAGED: u8 = 3;
