//! Makes lengths and checksums right again after bytes were changed, so that what is behind them is reached.

use bpfrec_format::block::{HEADER_LEN, SYNC};

/// Bit of a header's flags: lengths stay as they are, only checksums are mended.
const LENGTHS_LIE: u8 = 1;

/// Every header that has its sync mark gets right checksums, and the length up to the next one.
pub fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let starts: Vec<usize> = (8..bytes.len().saturating_sub(HEADER_LEN - 9))
        .filter(|at| bytes[*at..].starts_with(&SYNC))
        .map(|at| at - 8)
        .collect();
    let mut end = 0;
    for (i, start) in starts.iter().copied().enumerate() {
        if start < end {
            continue;
        }
        // The length that it tells, where that leads to the next header: an index has headers inside.
        let told = start + HEADER_LEN + u32_at(&bytes[start..], 48) as usize;
        let next = starts[i + 1..].iter().copied().find(|next| *next >= start + HEADER_LEN).unwrap_or(bytes.len());
        end = if told == bytes.len() || starts.binary_search(&told).is_ok() { told } else { next };
        one(&mut bytes[start..end]);
    }
    bytes
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn one(block: &mut [u8]) {
    block[..4].copy_from_slice(&0x184D_2A5B_u32.to_le_bytes());
    let own = (block.len() - HEADER_LEN) as u32;
    if block[39] & LENGTHS_LIE == 0 {
        block[48..52].copy_from_slice(&own.to_le_bytes());
        if block[37] == 0 {
            block[52..56].copy_from_slice(&own.to_le_bytes());
            sections(&mut block[HEADER_LEN..]);
        }
    }
    let len = u32_at(block, 48) as usize;
    if let Some(payload) = block[HEADER_LEN..].get(..len) {
        let crc = crc32c::crc32c(payload);
        block[88..92].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = crc32c::crc32c(&block[..92]);
    block[92..96].copy_from_slice(&crc.to_le_bytes());
}

/// A section that says to be longer than what is left is cut: the rows in it are then wrong, which is for the reader to find.
fn sections(mut payload: &mut [u8]) {
    const SECTION: usize = 12;
    while payload.len() > SECTION {
        let left = payload.len() - SECTION;
        let len = (u32_at(payload, 8) as usize).min(left);
        payload[8..12].copy_from_slice(&(len as u32).to_le_bytes());
        payload = &mut payload[SECTION + len..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_bytes_are_mended() {
        for seed in crate::seeds::files() {
            let whole = bpfrec_format::Segment::walk(Box::new(seed.clone())).unwrap();
            assert!(whole.damage.is_empty());
            assert_eq!(mended(&seed), seed, "what is right stays");
            let mut bad = seed.clone();
            let last = whole.blocks[1];
            bad[last.offset as usize + HEADER_LEN] ^= 1;
            bad.insert(last.offset as usize + HEADER_LEN + 5, 0);
            let mended = bpfrec_format::Segment::walk(Box::new(mended(&bad))).unwrap();
            assert_eq!(mended.blocks.len(), whole.blocks.len());
            assert!(mended.blocks.iter().all(|block| mended.read_stored(block).is_ok()));
        }
    }
}
