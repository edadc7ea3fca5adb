//! Waits that a trace of source `offcpu` cannot tell: each is told at its end.

use bpfrec_format::Source;

use super::Context;
use crate::text::count;

/// Events of the source that were lost after the window: waits that reach into it may be among them.
pub(super) fn lost_after(context: &Context<'_>) -> u64 {
    let after = context.filter.window().map(|(_, to)| (to.saturating_add(1), u64::MAX));
    after.map_or(0, |after| context.meta.losses.of(Source::Offcpu, Some(after)))
}

/// Notes about them.
pub(super) fn notes(context: &Context<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let lost = lost_after(context);
    if lost > 0 {
        let lost = count(lost);
        notes.push(format!("lost after the window: {lost} events, among them perhaps waits that reach into it"));
    }
    if context.reading.damage.unfinished > 0 {
        notes.push("the recording was cut off: waits that lasted then are missing".into());
    }
    notes
}
