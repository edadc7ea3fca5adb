//! Where a function ends: its `ret` instructions, found by disassembly. A breakpoint there leaves the stack alone.
//!
//! The kernel's own way to see a return puts a strange address in place of the return address, and C++ cannot unwind past
//! that: an exception ends the program. So operator new, which throws bad_alloc, is watched at its ends instead.
//!
//! A breakpoint in the middle of an instruction would break the program, so only what unwind tables say is one function is
//! decoded, from its beginning on, and a jump to anywhere but the beginning of an instruction there is refused. What the
//! function jumps to at its end, in place of a call, is followed; where that is known only when it runs, all is refused.

use std::collections::BTreeSet;

use gimli::{BaseAddresses, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, UnwindSection};
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction};
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Endianness, Object, ObjectSection, ObjectSymbol, ObjectSymbolTable, ReadRef, RelocationTarget, elf};
use rustc_hash::{FxHashMap, FxHashSet};

/// More functions than an allocator jumps to.
const MAX_FUNCTIONS: usize = 64;
/// A larger one is not decoded, bytes.
const MAX_BYTES: u64 = 64 << 10;
/// What a function that does not come back may jump to, in other files.
const NO_RETURN: [&str; 5] = ["abort", "__cxa_throw", "__cxa_rethrow", "_Unwind_Resume", "_ZSt17__throw_bad_allocv"];

type Slice<'d> = EndianSlice<'d, LittleEndian>;

/// The code of a file, and what is needed to find one's way in it.
pub struct Exits<'d, 'e, R: ReadRef<'d>> {
    elf: &'e ElfFile64<'d, Endianness, R>,
    tables: Option<(Slice<'d>, Slice<'d>)>,
    bases: BaseAddresses,
    /// What the linker puts into the slots that calls of other files go through, by the slot's address.
    slots: FxHashMap<u64, Target>,
}

/// Where a jump through a slot leads.
#[derive(Clone)]
enum Target {
    Here(u64),
    Elsewhere(String),
}

/// A function's instructions by address.
type Body = FxHashMap<u64, Instruction>;

impl<'d, 'e, R: ReadRef<'d>> Exits<'d, 'e, R> {
    /// Of this file.
    pub fn new(elf: &'e ElfFile64<'d, Endianness, R>) -> Self {
        let section = |name| elf.section_by_name(name).and_then(|s| Some((s.address(), s.data().ok()?)));
        let (index, frames) = (section(".eh_frame_hdr"), section(".eh_frame"));
        let mut bases = BaseAddresses::default();
        let tables = index.zip(frames).map(|((index_at, index), (frames_at, frames))| {
            bases = bases.clone().set_eh_frame_hdr(index_at).set_eh_frame(frames_at);
            (EndianSlice::new(index, LittleEndian), EndianSlice::new(frames, LittleEndian))
        });
        Exits { elf, tables, bases, slots: slots(elf) }
    }

    /// Addresses of the instructions by which the function at `entry` returns. What it jumps to of `known`, addresses and names
    /// of functions whose return is watched anyway, is left out. The error says what stands in the way.
    pub fn of(
        &self,
        entry: u64,
        known: &dyn Fn(u64) -> bool,
        named: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<u64>, String> {
        if self.elf.elf_header().e_machine.get(self.elf.endian()) != elf::EM_X86_64 {
            return Err("only code of x86-64 can be decoded".into());
        }
        let (mut bodies, mut seen) = (FxHashMap::<u64, (u64, Body)>::default(), FxHashSet::default());
        let (mut exits, mut open, mut ends_in_known) = (BTreeSet::new(), vec![entry], false);
        while let Some(at) = open.pop() {
            if !seen.insert(at) {
                continue;
            }
            let (first, last) = self.function(at).ok_or_else(|| format!("no unwind table has its code at {at:#x}"))?;
            if !bodies.contains_key(&first) {
                if bodies.len() == MAX_FUNCTIONS {
                    return Err("it jumps to too many functions".into());
                }
                bodies.insert(first, (last, self.decode(first, last)?));
            }
            let (last, body) = &bodies[&first];
            let one = body.get(&at).ok_or_else(|| format!("its code at {at:#x} cannot be decoded"))?;
            let mut go = |to: Target| {
                match to {
                    Target::Here(to) if to != entry && known(to) => ends_in_known = true,
                    Target::Here(to) => open.push(to),
                    Target::Elsewhere(name) if named(&name) => ends_in_known = true,
                    Target::Elsewhere(name) if NO_RETURN.contains(&name.as_str()) => {}
                    Target::Elsewhere(name) => return Err(format!("it ends in {name} of another file")),
                }
                Ok(())
            };
            let next = match one.flow_control() {
                FlowControl::Return => {
                    exits.insert(at);
                    false
                }
                FlowControl::UnconditionalBranch => {
                    go(self.target(one.near_branch_target()))?;
                    false
                }
                FlowControl::ConditionalBranch => {
                    go(self.target(one.near_branch_target()))?;
                    true
                }
                FlowControl::IndirectBranch if one.is_ip_rel_memory_operand() => {
                    let slot = self.slots.get(&one.ip_rel_memory_address());
                    go(slot.cloned().ok_or_else(|| format!("where it jumps to at {at:#x} is not in the file"))?)?;
                    false
                }
                FlowControl::IndirectBranch => {
                    return Err(format!("where it jumps to at {at:#x} is known only when it runs"));
                }
                FlowControl::Interrupt | FlowControl::Exception => false,
                // A call that does not come back may be a function's last instruction.
                FlowControl::Call | FlowControl::IndirectCall => one.next_ip() < *last,
                FlowControl::Next | FlowControl::XbeginXabortXend => true,
            };
            if next {
                open.push(one.next_ip());
            }
        }
        let none = exits.is_empty() && !ends_in_known;
        if none { Err("it has no end".into()) } else { Ok(exits.into_iter().collect()) }
    }

    /// The code that one entry of the unwind table is about: from here to there.
    fn function(&self, address: u64) -> Option<(u64, u64)> {
        let (index, frames) = self.tables?;
        let index = EhFrameHdr::from(index).parse(&self.bases, 8).ok()?;
        let frames = EhFrame::from(frames);
        let entry = index.table()?.fde_for_address(&frames, &self.bases, address, EhFrame::cie_from_offset).ok()?;
        entry.contains(address).then(|| (entry.initial_address(), entry.end_address()))
    }

    fn decode(&self, first: u64, last: u64) -> Result<Body, String> {
        let bytes = Some(last - first).filter(|len| *len <= MAX_BYTES).and_then(|len| self.bytes(first, len));
        let bytes = bytes.ok_or_else(|| format!("its code at {first:#x} cannot be read"))?;
        let decoder = Decoder::with_ip(64, bytes, first, DecoderOptions::NONE);
        Ok(decoder.into_iter().take_while(|one| one.code() != Code::INVALID).map(|one| (one.ip(), one)).collect())
    }

    fn bytes(&self, address: u64, len: u64) -> Option<&'d [u8]> {
        let endian = self.elf.endian();
        self.elf.elf_program_headers().iter().find_map(|segment| {
            let inside = address.checked_sub(segment.p_vaddr(endian))?;
            let holds = segment.p_type(endian) == elf::PT_LOAD && inside + len <= segment.p_filesz(endian);
            holds.then(|| self.elf.data().read_bytes_at(segment.p_offset(endian) + inside, len).ok()).flatten()
        })
    }

    /// Where a jump leads: a stub of the linker does nothing but jump on.
    fn target(&self, to: u64) -> Target {
        let stub = self.bytes(to, 16).and_then(|bytes| {
            let mut decoded = Decoder::with_ip(64, bytes, to, DecoderOptions::NONE).into_iter();
            let first = decoded.next()?;
            let jump = if first.code() == Code::Endbr64 { decoded.next()? } else { first };
            let through = jump.flow_control() == FlowControl::IndirectBranch && jump.is_ip_rel_memory_operand();
            through.then(|| self.slots.get(&jump.ip_rel_memory_address()).cloned()).flatten()
        });
        stub.unwrap_or(Target::Here(to))
    }
}

fn slots<'d, R: ReadRef<'d>>(elf: &ElfFile64<'d, Endianness, R>) -> FxHashMap<u64, Target> {
    let Some(symbols) = elf.dynamic_symbol_table() else { return FxHashMap::default() };
    let relocations = elf.dynamic_relocations().into_iter().flatten();
    let slot = |(at, relocation): (u64, object::Relocation)| {
        let RelocationTarget::Symbol(symbol) = relocation.target() else { return None };
        let symbol = symbols.symbol_by_index(symbol).ok()?;
        let name = || Target::Elsewhere(symbol.name().unwrap_or("a function").to_owned());
        Some((at, if symbol.is_undefined() { name() } else { Target::Here(symbol.address()) }))
    };
    relocations.filter_map(slot).collect()
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::process::Command;

    use super::*;

    const SOURCE: &str = "
        int other(int); extern int elsewhere(int);
        __attribute__((noinline)) int other(int x) { if (x > 7) return x * 3; return other(x + elsewhere(1)) + 1; }
        int two_ends(int x) { if (x > 1) return 4; return other(x); }
        int by_pointer(int (*p)(int)) { return p(1); }
        int out(int x) { return elsewhere(x); }
        void no_end(void) { __builtin_trap(); }";

    /// Asks for the ends of a function of a library that is compiled here.
    fn ends(name: &str, named: &[&str]) -> Result<Vec<u64>, String> {
        let dir = std::env::temp_dir().join(format!("bpfrec-exits-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (source, library) = (dir.join("x.c"), dir.join("x.so"));
        std::fs::write(&source, SOURCE).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-shared", "-fPIC", "-fcf-protection=none", "-o"]).args([&library, &source]);
        assert!(cc.status().unwrap().success());
        let bytes = std::fs::read(&library).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let elf = ElfFile64::<Endianness, _>::parse(&*bytes).unwrap();
        let entry = elf.dynamic_symbols().find(|s| s.name() == Ok(name)).unwrap().address();
        let exits = Exits::new(&elf);
        let found = exits.of(entry, &|_| false, &|name| named.contains(&name))?;
        assert!(found.iter().all(|at| exits.bytes(*at, 1) == Some(&[0xc3])), "{found:x?}");
        Ok(found)
    }

    #[test]
    fn the_ends_of_what_it_jumps_to_are_its_own() {
        let (own, other) = (ends("two_ends", &[]).unwrap(), ends("other", &[]).unwrap());
        assert!(own.len() > other.len() && other.iter().all(|at| own.contains(at)), "{own:x?} {other:x?}");
    }

    #[test]
    fn what_cannot_be_known_is_refused() {
        assert!(ends("by_pointer", &[]).unwrap_err().contains("known only when it runs"));
        assert_eq!(ends("out", &[]).unwrap_err(), "it ends in elsewhere of another file");
        // Where that function is watched itself there is nothing more to find.
        assert_eq!(ends("out", &["elsewhere"]), Ok(vec![]));
        assert_eq!(ends("no_end", &[]).unwrap_err(), "it has no end");
    }
}
