//! Needs root: an output that is slower than what is recorded costs no memory, and what does not fit is counted.
#![cfg(all(feature = "record", target_os = "linux"))]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bpfrec_format::{BlockType, Codec, Encoding, Trace};
use common::host::memory;
use common::twins::Twins;
use common::*;
use rustix::process::Signal;

/// What a recorder may have resident, its rings and the rows that wait with it: 4 MiB for each of two CPUs, 16 MiB in the
/// queue, chunks under way, and what it has without any of that.
const MEMORY: u64 = 128 << 20;

/// Reads a pipe, and does not for a while.
struct Reader(std::thread::JoinHandle<Vec<u8>>);

impl Reader {
    fn start(mut pipe: impl std::io::Read + Send + 'static, takes: usize, rests: Duration) -> Reader {
        Reader(std::thread::spawn(move || {
            let mut bytes = vec![0; takes];
            pipe.read_exact(&mut bytes).unwrap();
            std::thread::sleep(rests);
            pipe.read_to_end(&mut bytes).unwrap();
            bytes
        }))
    }
}

#[test]
fn root_a_reader_that_rests_costs_no_memory_and_what_is_lost_is_counted() {
    let Some(_alone) = alone_as_root("a slow reader") else { return };
    let scratch = Scratch::new();
    let mut twins = Twins::start(&scratch, &["-o", "-", "--ring-size", "256K"], Stdio::piped());
    let pipe = twins.one().stdout.take().unwrap();
    let reader = Reader::start(pipe, 4096, Duration::from_secs(7));
    let mut most = 0;
    twins.run(7, |one| {
        std::thread::sleep(Duration::from_secs(6));
        most = memory(one.id(), "VmHWM");
    });
    let (code, err, truth) = twins.finish();
    assert_eq!(code, Some(0), "{err}");
    let trace = scratch.path("t.bpr");
    fs::write(&trace, reader.0.join().unwrap()).unwrap();
    println!("{most} bytes resident at the most");
    assert!(most < MEMORY, "{most} bytes resident");
    bpfrec_ok(&["verify", trace.to_str().unwrap()]);
    truth.assert_all_is_counted(&trace, 1000);
    // While little waits columns are compressed; the more does, the less is made of it.
    let ladder = [(Codec::Zstd, Encoding::Columns), (Codec::None, Encoding::Columns), (Codec::None, Encoding::Raw)];
    assert_eq!(ways(&trace), ladder.map(|(codec, encoding)| (codec as u8, encoding as u8)).into());
}

/// How the blocks of events are stored: codec and encoding.
fn ways(trace: &Path) -> BTreeSet<(u8, u8)> {
    let trace = Trace::open(trace).unwrap();
    let blocks = trace.segments.iter().flat_map(|(_, segment)| segment.blocks_of(BlockType::Events));
    blocks.map(|block| (block.header.codec, block.header.encoding)).collect()
}

#[test]
fn root_an_output_that_takes_nothing_is_given_up() {
    let Some(_alone) = alone_as_root("a reader that takes nothing") else { return };
    let scratch = Scratch::new();
    let _load = Switches::start(40);
    let mut command = Command::new(BPFREC);
    command.args(["record", "-q", "-e", "sched", "--ring-size", "256K", "-o", "-"]).stdin(Stdio::null());
    let mut recording = Recording(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    // What runs, the kernel's functions, and some events.
    let mut bytes = vec![0; 1_400_000];
    let mut pipe = recording.0.stdout.take().unwrap();
    pipe.read_exact(&mut bytes).unwrap();
    // The queue fills within moments, and then nobody looks at anything but the queue.
    std::thread::sleep(Duration::from_secs(4));
    recording.signal(Signal::INT);
    wait_until("the recorder ends", Duration::from_secs(60), || recording.0.try_wait().unwrap().is_some());
    let (code, mut err) = (recording.0.wait().unwrap().code(), String::new());
    recording.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("takes nothing") && err.trim_end().lines().count() == 1, "{err}");
    pipe.read_to_end(&mut bytes).unwrap();
    let trace = scratch.path("t.bpr");
    fs::write(&trace, &bytes).unwrap();
    let info = info(&trace);
    assert!(info["complete"] == false && info["events"].as_u64().unwrap() > 100, "{info}");
}

/// Threads that hand the CPU to each other, stopped with their owner.
struct Switches(Child);

impl Switches {
    fn start(seconds: u32) -> Switches {
        let args = [&seconds.to_string(), "0", "2"];
        Switches(Command::new(load("switches")).args(args).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Switches {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file system on a disk that takes so many bytes a second, gone with its owner.
struct SlowDisk {
    at: PathBuf,
    device: String,
    number: String,
}

const THROTTLE: &str = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device";

fn tool(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{program} {args:?}: {err}");
    out.trim().into()
}

impl SlowDisk {
    fn mount(scratch: &Scratch) -> SlowDisk {
        let (image, at) = (scratch.path("disk"), scratch.path("slow"));
        fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        let device = tool("losetup", &["-f", "--show", image.to_str().unwrap()]);
        let number = fs::read_to_string(format!("/sys/block/{}/dev", device.trim_start_matches("/dev/"))).unwrap();
        let disk = SlowDisk { at, device, number: number.trim().into() };
        tool("mkfs.ext4", &["-q", &disk.device]);
        fs::create_dir(&disk.at).unwrap();
        tool("mount", &[&disk.device, disk.at.to_str().unwrap()]);
        disk
    }

    /// 0: as many as it can.
    fn takes(&self, bytes_a_second: u32) {
        let mut file = fs::OpenOptions::new().write(true).open(THROTTLE).unwrap();
        file.write_all(format!("{} {bytes_a_second}", self.number).as_bytes()).unwrap();
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        self.takes(0);
        let _ = Command::new("umount").arg(&self.at).status();
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

/// A sync of a slow disk takes seconds. Meanwhile the writer waits, the queue fills, and then the rings.
#[test]
fn root_a_slow_disk_costs_no_memory_and_what_is_lost_is_counted() {
    let Some(_alone) = alone_as_root("a slow disk") else { return };
    if !Path::new(THROTTLE).exists() {
        return skip(
            "root_a_slow_disk_costs_no_memory_and_what_is_lost_is_counted",
            "no blkio controller of cgroup v1",
        );
    }
    let scratch = Scratch::new();
    let disk = SlowDisk::mount(&scratch);
    let trace = disk.at.join("t.bpr");
    let options = ["-o", trace.to_str().unwrap(), "--ring-size", "256K", "--symbols", "none"];
    let mut twins = Twins::start(&scratch, &options, Stdio::null());
    disk.takes(100_000);
    let mut most = 0;
    twins.run(12, |one| {
        std::thread::sleep(Duration::from_secs(11));
        most = memory(one.id(), "VmHWM");
    });
    disk.takes(2_000_000);
    let begun = Instant::now();
    let (code, err, truth) = twins.finish();
    assert_eq!(code, Some(0), "{err}");
    println!("{most} bytes resident at the most, {} ms to the end", begun.elapsed().as_millis());
    assert!(most < MEMORY, "{most} bytes resident");
    bpfrec_ok(&["verify", trace.to_str().unwrap()]);
    truth.assert_all_is_counted(&trace, 1000);
}
