//! What the recorder may still do once its probes are attached: `rights.rs` and `sandbox.rs`, and what is said about both.

use anyhow::{Result, bail};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::args::RecordArgs;
use crate::rights::Kept;
use crate::sandbox::{self, Sandbox};
use crate::sideband::Sideband;
use crate::sources::Attached;
use crate::status::Status;

/// Fails with a sentence where segments go to a folder in which nothing can be created any more when rights are given up.
pub fn check(args: &RecordArgs) -> Result<()> {
    if !args.rotates() || !args.output.is_dir() {
        return Ok(());
    }
    let kept = Kept::new(args.rights)?;
    let may_write = || accessat(CWD, &args.output, Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty()).is_ok();
    if may_write() && !kept.only(may_write)? {
        bail!(
            "{}: once the probes are attached the recorder gives up the right to write into folders of others, and segments \
             could not be created there: use a folder of its own, or --rights all",
            args.output.display()
        );
    }
    Ok(())
}

/// Chooses what stays, for these sources.
pub fn choose(args: &RecordArgs, sources: &[Attached], cpus: &[u32], status: &Status) -> Result<Kept> {
    let kept = Kept::new(args.rights)?;
    let probes = sources.iter().any(|s| s.source.attaches_by_perf_events());
    // One that is off may come; then what is recorded by perf events begins there.
    let comes = crate::limits::online_cpus()?.len() < cpus.len();
    if !probes && !comes || kept.only(|| Sideband::is_permitted(cpus))? {
        return Ok(kept);
    }
    let what = if probes { "probes in processes that start later" } else { "CPUs that come later" };
    let more = kept.with_admin()?;
    let setting = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    status.say(&match more.has_admin() {
        true => format!(
            "CAP_SYS_ADMIN is kept: with kernel.perf_event_paranoid={} this kernel wants it for {what}",
            setting.trim()
        ),
        false => format!(
            "no perf events for {what}: with kernel.perf_event_paranoid={} this kernel wants CAP_SYS_ADMIN for that",
            setting.trim()
        ),
    });
    Ok(more)
}

/// Goes there with all threads. Returns facts for the file's header.
pub fn enter(args: &RecordArgs, kept: Kept, sources: &[Attached], status: &Status) -> Result<Vec<(String, String)>> {
    kept.give_up()?;
    let attaches = sources.iter().any(|s| s.source.attaches_later());
    let sandbox = match sandbox::enter(args.sandbox, attaches) {
        Ok(()) if args.sandbox == Sandbox::Off => "off",
        Ok(()) => "on",
        Err(error) => {
            status.say(&format!("the recorder runs without a sandbox: {error:#}"));
            "off"
        }
    };
    Ok(vec![("rights".into(), kept.names()), ("sandbox".into(), sandbox.into())])
}

/// Says which threads were forgotten.
pub fn look(kept: Kept, status: &Status) {
    for thread in kept.threads_with_more() {
        status.say(&format!("warning: the thread {thread} hangs, and keeps its rights until it ends"));
    }
}
