//! What code a process has where, and the walk of one of its stacks.

use std::collections::BTreeMap;
use std::sync::Arc;

use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder};

use super::arch;
use super::binaries::Binaries;
use crate::layout::CopyRecord;
use crate::pids;
use crate::processes::Mapping;

/// As many frames as the kernel's own walk gives at the most.
pub const MAX_FRAMES: usize = 127;

/// Where a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the first function of its thread, or at the limit of frames.
    Start,
    /// Before it: the copy ended, or there were no tables.
    Cut,
}

/// Rules for addresses of all processes, and what they are made from.
#[derive(Default)]
pub struct Tools {
    /// Rules that were used lately.
    pub rules: arch::Cache,
    /// Tables.
    pub binaries: Binaries,
}

/// An executable mapping, and whether its tables were looked for.
struct Region {
    mapping: Mapping,
    looked: bool,
}

/// The code of a process that runs one program.
pub struct Process {
    /// Which one.
    pub exec_id: u64,
    /// Up to when mappings are known, CLOCK_MONOTONIC.
    pub known_ns: u64,
    /// When it was last asked for.
    pub used_ns: u64,
    regions: BTreeMap<u64, Region>,
    unwinder: arch::Unwinder<Arc<[u8]>>,
}

impl Process {
    /// A process with these mappings, known at `known_ns`.
    pub fn new(exec_id: u64, known_ns: u64, mappings: impl Iterator<Item = Mapping>) -> Process {
        let unwinder = arch::Unwinder::new();
        let mut process = Process { exec_id, known_ns, used_ns: known_ns, regions: BTreeMap::new(), unwinder };
        mappings.for_each(|m| process.map(m));
        process
    }

    /// What `pid` has mapped now; `None` when it is gone.
    pub fn read(pid: u32, exec_id: u64) -> Option<Process> {
        let now = crate::clock::mono_ns();
        let maps = std::fs::read(pids::proc(pid) + "/maps").ok().filter(|maps| !maps.is_empty())?;
        let parse = |line| Mapping::parse(line, pid, now);
        Some(Process::new(exec_id, now, maps.split(|b| *b == b'\n').filter_map(parse)))
    }

    /// A new mapping replaces what it overlaps.
    pub fn map(&mut self, mapping: Mapping) {
        let end = mapping.start.saturating_add(mapping.len);
        let over = self.regions.range(..end).rev().take_while(|(_, r)| r.mapping.start + r.mapping.len > mapping.start);
        let over: Vec<u64> = over.map(|(start, _)| *start).collect();
        for start in over {
            self.regions.remove(&start);
            self.unwinder.remove_module(start);
        }
        self.regions.insert(mapping.start, Region { mapping, looked: false });
    }

    /// Whether there is code at `addr`. The first time that an address of a binary comes by, its tables are looked up.
    fn has_code(&mut self, addr: u64, binaries: &mut Binaries) -> bool {
        let Some((_, region)) = self.regions.range_mut(..=addr).next_back() else { return false };
        let m = &region.mapping;
        if addr - m.start >= m.len {
            return false;
        }
        if !std::mem::replace(&mut region.looked, true)
            && let Some(tables) = binaries.of(m)
            && let Some(bias) = tables.bias(m)
        {
            let [frame, index] = [&tables.eh_frame, &tables.eh_frame_hdr].map(|s| s.clone().unzip());
            let sections = ExplicitModuleSectionInfo {
                base_svma: tables.first_addr(),
                eh_frame_svma: frame.0,
                eh_frame: frame.1,
                eh_frame_hdr_svma: index.0,
                eh_frame_hdr: index.1,
                ..Default::default()
            };
            let base = bias.wrapping_add(tables.first_addr());
            self.unwinder.add_module(Module::new(String::new(), m.start..m.start + m.len, base, sections));
        }
        true
    }

    /// Walks a copied stack: addresses, innermost first, and where it ended.
    pub fn walk(&mut self, copy: &CopyRecord, tools: &mut Tools) -> (Vec<u64>, End) {
        let [ip, sp, ..] = copy.registers;
        let mut registers = arch::registers(copy.registers);
        let mut read = |addr: u64| {
            let from = usize::try_from(addr.checked_sub(sp).ok_or(())?).map_err(|_| ())?;
            let bytes = copy.stack.get(from..from.saturating_add(8)).ok_or(())?;
            bytes.try_into().map(u64::from_ne_bytes).map_err(|_| ())
        };
        let mut frames = vec![ip];
        let mut at = FrameAddress::from_instruction_pointer(ip);
        while frames.len() < MAX_FRAMES {
            // A frame that is no code is a wrong turn.
            if !self.has_code(at.address_for_lookup(), &mut tools.binaries) {
                if frames.len() > 1 {
                    frames.pop();
                }
                return (frames, End::Cut);
            }
            match self.unwinder.unwind_frame(at, &mut registers, &mut tools.rules, &mut read) {
                Ok(Some(back)) => match FrameAddress::from_return_address(back) {
                    Some(address) => at = address,
                    None => return (frames, End::Start),
                },
                Ok(None) => return (frames, End::Start),
                Err(_) => return (frames, End::Cut),
            }
            frames.push(at.address());
        }
        (frames, End::Start)
    }
}
