//! The signals that end a recording.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Raised by SIGINT, SIGTERM and SIGHUP from now on.
///
/// # Errors
/// When a handler cannot be installed.
pub fn watch() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Under nohup a recording outlives its terminal.
        if signal != SIGHUP || !is_ignored(signal) {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
    }
    // A write beyond `ulimit -f` is to fail, as on a full disk, and not to end the process.
    signal_hook::flag::register(libc::SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Ok(stop)
}

/// Whether whoever started this process had a signal ignored.
fn is_ignored(signal: i32) -> bool {
    // SAFETY: `action` is zeroed and whole; with no new action sigaction only writes the present one into it.
    let action = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action);
        action
    };
    action.sa_sigaction == libc::SIG_IGN
}
