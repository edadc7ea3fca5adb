//! `folded`: one line a stack, `name;root;...;leaf weight`, as flamegraph.pl, inferno and speedscope read it.
//!
//! Weights: samples, microseconds off the CPU, bytes. `;` parts frames, so that one in a name becomes `:`; control characters are
//! shown as escapes. Loss has no place in it.

use bpfrec_format::Source;

use super::scene::Scene;
use super::sums::{Sums, Weight};
use super::{Format, Make, Out};
use crate::error::Result;
use crate::reports::stack_lines::{folded_lines, folded_name, folded_part};

/// In the list of formats.
pub const FORMAT: Format = Format {
    name: "folded",
    file: "stacks.txt",
    about: "Folded stacks, for flamegraph.pl, inferno, speedscope",
    is_text: true,
    of_one_weight: true,
    sources: &[Source::Profile, Source::Offcpu, Source::Malloc, Source::Kmem],
    make: Make::Sums(write),
};

fn write(scene: &Scene<'_>, sums: &Sums<'_>, out: &mut Out<'_>) -> Result<()> {
    let weight = sums.weight.unwrap_or(Weight::Cpu);
    let mut lines = Vec::new();
    sums.each(scene, &mut |_, of, places| {
        let mut line = folded_name(&of.comm);
        places.iter().for_each(|place| folded_part(scene.name(*place), &mut line));
        let value = match weight {
            Weight::Cpu => of.values[0],
            Weight::Offcpu | Weight::Allocated => of.values[1],
            Weight::Live => of.values[3],
        };
        if value > 0 {
            lines.push((line, value));
        }
        Ok(())
    })?;
    let mut text = String::new();
    folded_lines(lines, if weight == Weight::Offcpu { 1000 } else { 1 }, &mut text);
    out.write_all(text.as_bytes())?;
    Ok(())
}
