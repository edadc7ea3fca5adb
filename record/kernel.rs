//! Facts about this host and its kernel, and the kernel's symbols.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek};

use anyhow::{Context, Result, ensure};
use bpfrec_format::Column::{Int, Text};
use bpfrec_format::{Table, meta};

const KALLSYMS: &str = "/proc/kallsyms";

/// Facts for the header of each segment.
pub fn items() -> Vec<(String, String)> {
    let uname = rustix::system::uname();
    let text = |c: &std::ffi::CStr| c.to_string_lossy().into_owned();
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    [
        ("bpfrec_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("host", text(uname.nodename())),
        ("kernel", text(uname.release())),
        ("kernel_version", text(uname.version())),
        ("arch", text(uname.machine())),
        ("host_id", host_id(&file("/etc/machine-id"))),
        ("boot_id", file("/proc/sys/kernel/random/boot_id")),
        ("kernel_build_id", hex(&build_id("/sys/kernel/notes"))),
        ("page_size", rustix::param::page_size().to_string()),
        ("cpus_online", file("/sys/devices/system/cpu/online")),
        ("recorder_pid", crate::pids::recorder().to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The GNU build id in a file of ELF notes; empty when there is none.
pub fn build_id(notes: &str) -> Vec<u8> {
    fs::read(notes).ok().and_then(|notes| note(&notes)).unwrap_or_default()
}

/// `u32 name bytes, value bytes, type`, name, value; both of these end at a multiple of four.
fn note(mut notes: &[u8]) -> Option<Vec<u8>> {
    const BUILD_ID: u32 = 3;
    loop {
        let int = |at: usize| Some(u32::from_ne_bytes(*notes.get(at..)?.first_chunk()?));
        let (name_bytes, bytes, kind) = (int(0)? as usize, int(4)? as usize, int(8)?);
        let at = 12 + name_bytes.next_multiple_of(4);
        if kind == BUILD_ID && notes.get(12..12 + name_bytes)? == b"GNU\0" {
            return Some(notes.get(at..at + bytes)?.to_vec());
        }
        notes = notes.get(at + bytes.next_multiple_of(4)..)?;
    }
}

/// A number that is the same for all recordings of this host. The machine id itself must not be given away.
fn host_id(machine_id: &str) -> String {
    match machine_id {
        "" => String::new(),
        id => format!("{:016x}", xxhash_rust::xxh3::xxh3_64(format!("bpfrec {id}").as_bytes())),
    }
}

/// Functions of the kernel as they are now.
pub struct Symbols {
    /// Of kernel, modules and BPF programs, by address: kind `kernel_symbol`.
    pub table: Table,
    /// What to print when the kernel hides them.
    pub warning: Option<String>,
    /// Bytes of /proc/kallsyms that tell of the kernel itself, nearly: modules come behind them.
    pub core_bytes: u64,
}

/// A list that the kernel shows with addresses only to whoever had CAP_SYSLOG when opening it. It is opened once, before that
/// is given up, and read again and again.
pub struct List(File);

impl List {
    /// Opens /proc/kallsyms.
    pub fn of_functions() -> Result<List> {
        File::open(KALLSYMS).map(List).context(KALLSYMS)
    }

    /// Opens /proc/modules; a kernel without modules has none.
    pub fn of_modules() -> Option<List> {
        File::open("/proc/modules").map(List).ok()
    }

    /// All of it, as it is now.
    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        self.0.rewind()?;
        self.0.read_to_end(&mut text)?;
        Ok(text)
    }
}

/// Reads them.
pub fn symbols(list: &mut List) -> Result<Symbols> {
    let text = list.read().context(KALLSYMS)?;
    let table = parse(&text);
    let warning = hidden(&table).map(|by| {
        format!(
            "the kernel hides its addresses ({by}), so kernel frames will have no names: \
             `sysctl kernel.kptr_restrict=1`, and record as root"
        )
    });
    Ok(Symbols { table, warning, core_bytes: core_bytes(&text) })
}

/// Where a line begins that is a few lines of the kernel itself before the first of a module: who read so far has made the kernel
/// look at no module yet (it looks one line ahead: fs/seq_file.c, seq_read_iter).
fn core_bytes(text: &[u8]) -> u64 {
    const LINES_AHEAD: usize = 4;
    let mut begins = VecDeque::from([0]);
    for line in text.split_inclusive(|b| *b == b'\n') {
        if line.contains(&b'[') {
            break;
        }
        begins.push_back(begins.back().unwrap_or(&0) + line.len() as u64);
        if begins.len() > LINES_AHEAD {
            begins.pop_front();
        }
    }
    begins[0]
}

/// /proc/kallsyms, read up to the modules: their functions can be had at once, where the whole takes the kernel a tenth of a
/// second on a slow machine, and a module may live for less.
pub struct Positioned(File);

impl Positioned {
    /// Reads so far.
    pub fn new(list: List, core_bytes: u64) -> Result<Positioned> {
        let List(mut file) = list;
        file.rewind().context(KALLSYMS)?;
        // Only whole reads of that many bytes: one byte more, and the kernel would look at the modules.
        let read = io::copy(&mut (&mut file).take(core_bytes), &mut io::sink()).context(KALLSYMS)?;
        ensure!(read == core_bytes, "{KALLSYMS} has only {read} of {core_bytes} bytes");
        Ok(Positioned(file))
    }

    /// What comes there, and the list for another time.
    fn read(self) -> io::Result<(Vec<u8>, List)> {
        let (Positioned(mut file), mut text) = (self, Vec::new());
        file.read_to_end(&mut text)?;
        Ok((text, List(file)))
    }
}

/// Where functions are read from.
pub enum From<'a> {
    /// From its begin.
    All(&'a mut List),
    /// Quickly; what is left is put there.
    Modules(Positioned, &'a mut Vec<List>),
}

/// Functions of some modules, kind `kernel_symbol`.
pub fn symbols_of(wanted: &dyn Fn(&[u8]) -> bool, from: From<'_>) -> Result<Table> {
    let text = match from {
        From::All(list) => list.read().context(KALLSYMS)?,
        From::Modules(positioned, lists) => {
            let (text, list) = positioned.read().context(KALLSYMS)?;
            lists.push(list);
            text
        }
    };
    let all = parse(&text);
    let [Int(addr), Int(kind), Text(name), Text(module)] = &all.columns[..] else { return Ok(all) };
    let mut table = Table::new(&meta::kind(meta::KERNEL_SYMBOL));
    for i in (0..all.rows()).filter(|i| wanted(module.get(*i))) {
        table.push(&[addr[i].into(), kind[i].into(), name.get(i).into(), module.get(i).into()]);
    }
    Ok(table)
}

/// Whether the kernel hides its addresses from us, and by what: a value for the header.
pub fn hidden(symbols: &Table) -> Option<String> {
    let hidden = symbols.columns[0].ints().iter().all(|addr| *addr == 0);
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    let (kptr, perf) = (setting("kptr_restrict"), setting("perf_event_paranoid"));
    hidden.then(|| format!("kernel.kptr_restrict={} kernel.perf_event_paranoid={}", kptr.trim(), perf.trim()))
}

/// Lines such as `ffffffff81000000 T _stext` and `ffffffffc0000000 t init [module]`.
fn parse(text: &[u8]) -> Table {
    let mut symbols = Vec::new();
    for line in text.split(|b| *b == b'\n') {
        let mut fields = line.split(|b| b.is_ascii_whitespace()).filter(|f| !f.is_empty());
        let (Some(addr), Some([kind]), Some(name)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let addr = std::str::from_utf8(addr).ok().and_then(|a| u64::from_str_radix(a, 16).ok());
        // Before each function there may be room for a patch, under a name of its own: half of all names, and no code that runs
        // (CONFIG_PREFIX_SYMBOLS).
        let wanted = matches!(kind, b't' | b'T' | b'w' | b'W') && !name.starts_with(b"__pfx_");
        let Some(addr) = addr.filter(|_| wanted) else { continue };
        let module = fields.next().unwrap_or_default();
        let module = module.strip_prefix(b"[").and_then(|m| m.strip_suffix(b"]")).unwrap_or(module);
        symbols.push((addr, *kind, name, module));
    }
    symbols.sort_by_key(|s| s.0);
    let mut table = Table::new(&meta::kind(meta::KERNEL_SYMBOL));
    for (addr, kind, name, module) in symbols {
        table.push(&[addr.into(), u32::from(kind).into(), name.into(), module.into()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_id_among_notes() {
        let one = |name: &[u8], kind: u32, value: &[u8]| {
            let head = [name.len() as u32, value.len() as u32, kind].map(u32::to_ne_bytes).concat();
            let pad = |part: &[u8]| [part, &vec![0; part.len().next_multiple_of(4) - part.len()]].concat();
            [head, pad(name), pad(value)].concat()
        };
        let notes = [one(b"Linux\0", 257, b"abcde"), one(b"GNU\0", 1, b"x"), one(b"GNU\0", 3, b"id!")].concat();
        assert_eq!(note(&notes).as_deref(), Some(&b"id!"[..]));
        assert_eq!((note(&notes[..notes.len() - 4]), note(b"")), (None, None));
    }

    #[test]
    fn where_modules_come() {
        let core: String = (0..9).map(|i| format!("{i:016x} T f{i}\n")).collect();
        let line = core.len() as u64 / 9;
        for more in ["", "0000000000000030 t b\t[mod]\n0000000000000040 t c\n"] {
            assert_eq!(core_bytes(format!("{core}{more}").as_bytes()), 6 * line);
        }
        assert_eq!((core_bytes(b""), core_bytes(b"1 T a\n2 t b [m]\n")), (0, 0));
    }

    #[test]
    fn what_is_behind_the_kernel_itself() {
        let mut list = List::of_functions().unwrap();
        let all = symbols(&mut list).unwrap();
        let some = |table: &Table| (0..table.rows()).map(|i| table.columns[0].ints()[i]).collect::<Vec<_>>();
        let is_module = |module: &[u8]| !module.is_empty();
        let whole = symbols_of(&is_module, From::All(&mut list)).unwrap();
        // The same file twice.
        let mut lists = Vec::new();
        let positioned = Positioned::new(list, all.core_bytes).unwrap();
        let behind = symbols_of(&is_module, From::Modules(positioned, &mut lists)).unwrap();
        assert_eq!(some(&whole), some(&behind));
        let positioned = Positioned::new(lists.pop().unwrap(), all.core_bytes).unwrap();
        let rest = symbols_of(&|_| true, From::Modules(positioned, &mut lists)).unwrap();
        assert!(rest.rows() < whole.rows() + 10, "{} of {}", rest.rows(), all.table.rows());
    }

    #[test]
    fn functions_only_by_address() {
        let table = parse(b"0000000000000030 t b\t[mod]\n0000000000000010 T a\n0000000000000020 D data\nrubbish\n000000000000002c t __pfx_b\t[mod]\n");
        assert_eq!(table.columns[0].ints(), [0x10, 0x30]);
        let (Text(names), Text(modules)) = (&table.columns[2], &table.columns[3]) else { panic!("text columns") };
        assert_eq!((names.get(0), names.get(1)), (&b"a"[..], &b"b"[..]));
        assert_eq!((modules.get(0), modules.get(1)), (&b""[..], &b"mod"[..]));
    }
}
