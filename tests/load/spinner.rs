// Spends SECONDS in a function of its own, in one of the C library, and in the kernel, in turn.
//   spinner SECONDS
use std::io::Read;
use std::time::{Duration, Instant};

unsafe extern "C" {
    fn random() -> std::ffi::c_long;
}

mod work {
    #[inline(never)]
    pub fn crunch(rounds: u64) -> u64 {
        (0..rounds).fold(1, |sum, n| std::hint::black_box(sum * 6364136223846793005u64.wrapping_add(n) % 1000003))
    }

    #[inline(never)]
    pub fn draw(rounds: u64) -> u64 {
        // SAFETY: takes nothing and returns a number.
        (0..rounds).fold(0, |sum, _| sum ^ unsafe { super::random() } as u64)
    }
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1.0);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut zero = std::fs::File::open("/dev/zero").unwrap();
    let (mut bytes, mut sum) = (vec![0; 1 << 20], 0u64);
    while Instant::now() < end {
        sum ^= work::crunch(200_000) ^ work::draw(100_000);
        for _ in 0..100 {
            zero.read_exact(&mut bytes).unwrap();
        }
    }
    std::hint::black_box(sum);
}
