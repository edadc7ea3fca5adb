//! Functions of binaries, written once the probes are off: from the symbol table, else from what distributions keep
//! compressed in `.gnu_debugdata` and from the exported symbols. A batch at a time, so that memory does not grow with
//! the binary; never by mapping the file, for a file that is cut meanwhile would end this process.

use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bpfrec_format::codec::{Compressor, LEVEL};
use bpfrec_format::meta::{self, symbol_source};
use bpfrec_format::reader::ReadAt;
use bpfrec_format::{Block, BlockType, Table};

use crate::args::Symbols;
use crate::binaries::{Binary, Rows, missing};
use crate::chosen::Chosen;
use crate::elf::{self, Segment, SymbolTable};
use crate::finish::LAST_CALL;
use crate::session::Session;
use crate::writer::Message;

/// Longest time after the stop.
const LONGEST: Duration = Duration::from_secs(10);
/// How long to wait for whoever reads a binary.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where others want all CPUs, about a seventh of one is left to us.
const NICE: i32 = 5;
/// Functions in a block.
const BATCH: usize = 16_384;
/// Names longer than this are cut: C++ templates can have a hundred times that.
const LONGEST_NAME: usize = 8192;
/// Names are read in pieces of this size.
const WINDOW: usize = 128 << 10;
/// Unpacked `.gnu_debugdata` at most; that of the largest programs has a fifth of this.
const MOST_UNPACKED: u64 = 32 << 20;
/// Memory that unpacking may use.
const UNPACK_MEMORY: u64 = 96 << 20;

/// What bounds the work.
pub struct Limits<'a> {
    /// Bytes in the file that are left.
    pub bytes: u64,
    /// When to end.
    pub until: Instant,
    /// Whether somebody wants it to end.
    pub stop: &'a dyn Fn() -> bool,
}

/// Why the symbols of a binary end early.
enum End {
    Budget,
    Stopped,
    /// The writer takes no more.
    Closed,
    Io,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Io
    }
}

struct Function {
    name: u32,
    addr: u64,
    len: u64,
}

/// Writes the functions of one binary, `all` or those in pages that were hit, as blocks through `send`, and notes in `b` how
/// many there are or why not. Returns false when no more can be written.
pub fn write(b: &mut Binary, all: bool, limits: &mut Limits<'_>, send: &dyn Fn(Block) -> bool) -> bool {
    let file = match b.reader() {
        Ok(file) => file,
        Err(why) => {
            b.missing = why;
            return true;
        }
    };
    let mut pages: Vec<_> = b.pages.iter().copied().collect();
    pages.sort_unstable();
    let pages = (!all).then_some(&pages[..]);
    let mut work = Work { id: b.id, pages, written: 0, full: false, limits, send };
    let result = work.binary(&*file);
    b.symbols = work.written;
    b.missing = match result {
        Ok(()) if !work.full && work.written == 0 => missing::STRIPPED,
        Ok(()) => "",
        Err(End::Budget) => missing::BUDGET,
        Err(End::Stopped | End::Closed) => missing::STOPPED,
        Err(End::Io) => missing::UNREADABLE,
    };
    !matches!(result, Err(End::Stopped | End::Closed))
}

struct Work<'a, 'b> {
    id: u64,
    pages: Option<&'a [u64]>,
    written: u32,
    /// It has a table of all functions, not only of exported ones.
    full: bool,
    limits: &'a mut Limits<'b>,
    send: &'a dyn Fn(Block) -> bool,
}

impl Work<'_, '_> {
    fn binary(&mut self, file: &dyn ReadAt) -> Result<(), End> {
        // Read anew: where the tables are is not worth remembering for all binaries.
        let Some(layout) = elf::layout(file) else { return Err(End::Io) };
        let segments = &layout.segments;
        if let Some(table) = layout.symtab {
            self.table(file, table, segments, symbol_source::SYMTAB)?;
        }
        if self.full {
            return Ok(());
        }
        if let Some((offset, len)) = layout.debug_data {
            let unpacked = unpack(file, offset, len)?;
            if let Some(table) = elf::layout(&unpacked).and_then(|l| l.symtab) {
                self.table(&unpacked, table, segments, symbol_source::GNU_DEBUGDATA)?;
            }
        }
        match layout.dynsym {
            Some(table) => self.table(file, table, segments, symbol_source::DYNSYM),
            None => Ok(()),
        }
    }

    /// Functions of a table in `file`, which lie in the binary where its `segments` say.
    fn table(&mut self, file: &dyn ReadAt, table: SymbolTable, segments: &[Segment], source: u64) -> Result<(), End> {
        let chosen = Chosen::new(self.pages, segments, file, &table, source)?;
        let mut batch = Vec::new();
        let mut result = Ok(());
        table.functions(file, |name, addr, len| {
            self.full |= source != symbol_source::DYNSYM;
            batch.extend(chosen.length(addr, len).map(|len| Function { name, addr, len }));
            if batch.len() == BATCH {
                result = self.batch(file, &table, &mut batch, source);
            }
            Ok(result.is_ok())
        })?;
        result?;
        self.batch(file, &table, &mut batch, source)
    }

    /// Writes a batch, in the order of addresses, and clears it.
    fn batch(
        &mut self,
        file: &dyn ReadAt,
        table: &SymbolTable,
        batch: &mut Vec<Function>,
        source: u64,
    ) -> Result<(), End> {
        if batch.is_empty() {
            return Ok(());
        }
        if (self.limits.stop)() || Instant::now() >= self.limits.until {
            return Err(End::Stopped);
        }
        // Names stand nearly in the order of symbols: sorted, they are read in one go.
        batch.sort_unstable_by_key(|f| f.name);
        let (mut names, mut ends) = (Vec::new(), Vec::with_capacity(batch.len()));
        let mut reader = Names { file, table, window: Vec::new(), from: 0 };
        for f in batch.iter() {
            names.extend_from_slice(reader.name(f.name)?);
            ends.push(names.len());
        }
        let mut order: Vec<usize> = (0..batch.len()).collect();
        order.sort_unstable_by_key(|i| (batch[*i].addr, batch[*i].len));
        let mut rows = Table::new(&meta::kind(meta::BINARY_SYMBOL));
        for i in order {
            let (f, start) = (&batch[i], i.checked_sub(1).map_or(0, |before| ends[before]));
            let name = &names[start..ends[i]];
            if !name.is_empty() {
                rows.push(&[self.id.into(), f.addr.into(), f.len.into(), source.into(), name.into()]);
            }
        }
        batch.clear();
        let mut compressor = Compressor::new(LEVEL).map_err(|_| End::Io)?;
        let block = Block::of_tables(BlockType::BinarySymbols, &[&rows], Some(&mut compressor)).map_err(|_| End::Io)?;
        let bytes = block.header.total_len();
        let Some(left) = self.limits.bytes.checked_sub(bytes) else { return Err(End::Budget) };
        if !(self.send)(block) {
            return Err(End::Closed);
        }
        self.limits.bytes = left;
        self.written += rows.rows() as u32;
        Ok(())
    }
}

/// Names of functions, read through a window that moves forward.
struct Names<'a> {
    file: &'a dyn ReadAt,
    table: &'a SymbolTable,
    window: Vec<u8>,
    /// Offset of the window in the table of names.
    from: u64,
}

impl Names<'_> {
    fn name(&mut self, offset: u32) -> io::Result<&[u8]> {
        let (start, len) = self.table.names;
        let offset = u64::from(offset);
        if offset >= len {
            return Ok(&[]);
        }
        let held = |n: &Self| {
            let rest = n.window.get(usize::try_from(offset.checked_sub(n.from)?).ok()?..)?;
            let end = rest.iter().take(LONGEST_NAME).position(|b| *b == 0);
            end.or((rest.len() >= LONGEST_NAME).then_some(LONGEST_NAME))
        };
        let end = match held(self) {
            Some(end) => end,
            None => {
                self.window.resize(WINDOW.min((len - offset) as usize), 0);
                self.file.read_exact_at(&mut self.window, start + offset)?;
                self.from = offset;
                held(self).unwrap_or(0)
            }
        };
        let at = (offset - self.from) as usize;
        Ok(&self.window[at..at + end])
    }
}

/// Unpacks xz.
fn unpack(file: &dyn ReadAt, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    if len > MOST_UNPACKED {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut packed = vec![0; len as usize];
    file.read_exact_at(&mut packed, offset)?;
    let stream = xz2::stream::Stream::new_stream_decoder(UNPACK_MEMORY, 0)?;
    let mut unpacked = Vec::new();
    xz2::read::XzDecoder::new_stream(&packed[..], stream).take(MOST_UNPACKED + 1).read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > MOST_UNPACKED { Err(io::ErrorKind::InvalidData.into()) } else { Ok(unpacked) }
}

impl Session {
    /// Writes the functions of the chosen binaries, those that most stacks hit first. The probes are off by now, and
    /// this thread has nothing else to do, so it stands back behind everything else on the host. A signal ends it.
    pub(crate) fn write_symbols(&mut self) {
        if self.args.symbols == Symbols::None {
            return;
        }
        let Some(mut seen) = self.seen.lock_within(PATIENCE) else {
            self.status.say("a file system does not answer: the trace has no function names of binaries");
            return;
        };
        self.hits.resolve(&mut seen);
        let _ = rustix::process::setpriority_process(None, NICE);
        let all = self.args.symbols == Symbols::All;
        let list = &mut seen.binaries.list;
        let mut chosen: Vec<usize> = (0..list.len()).filter(|i| all || list[*i].hits > 0).collect();
        chosen.sort_by_key(|i| std::cmp::Reverse(list[*i].hits));
        let stop = || self.stop.load(Ordering::Relaxed);
        let until = Instant::now() + LONGEST;
        let mut limits = Limits { bytes: self.names_bytes(), until, stop: &stop };
        let late = || stop() || Instant::now() >= until || self.writer.stalled() > LAST_CALL;
        let send = |block: Block| self.writer.send(Message::Block(block), &late).is_ok();
        let (mut rows, mut open) = (Rows::default(), true);
        for i in chosen {
            let b = &mut list[i];
            if open {
                open = write(b, all, &mut limits, &send);
            } else {
                b.missing = missing::STOPPED;
            }
            rows.push(b, b.file);
        }
        // The writer has its time from here on.
        self.stopped.set(Some(Instant::now()));
        let over = seen.binaries.over + seen.images.over + self.hits.over;
        if let Some((block_type, tables)) = rows.take() {
            self.send(Message::Tables(block_type, tables));
        }
        if over > 0 {
            self.tell("binaries_not_counted", &over.to_string());
        }
    }
}
