//! Changes bytes: of the file as it is, and of payloads with their checksums made right again.

use bpfrec_format::codec::decompress;
use bpfrec_format::{Block, BlockHeader, Codec, Segment};

use crate::builder::Random;

/// A copy with bytes flipped, cut, repeated or put in.
pub fn changed(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + random.next(6) {
        one(&mut bytes, random);
    }
    bytes
}

fn one(bytes: &mut Vec<u8>, random: &mut Random) {
    /// Varints, lengths and tags at their edges.
    const PUT: [&[u8]; 7] = [
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        &[0xff, 0xff, 0xff, 0xff, 15],
        &[0x80, 0x80, 0x80, 0],
        &[0xff, 0xff, 0xff, 0xff],
        &[0],
        &[6],
        &[3, 255],
    ];
    if bytes.is_empty() {
        return;
    }
    let at = random.next(bytes.len() as u64) as usize;
    let len = (random.next(64) as usize).min(bytes.len() - at);
    match random.next(7) {
        0 => bytes[at] ^= 1 << random.next(8),
        1 => bytes[at] = random.next(256) as u8,
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..at + len)),
        4 => {
            let part = bytes[at..at + len].to_vec();
            bytes.splice(at..at, part);
        }
        5 => {
            let put = PUT[random.next(PUT.len() as u64) as usize];
            bytes.splice(at..(at + put.len()).min(bytes.len()), put.iter().copied());
        }
        _ => {
            let to = random.next(bytes.len() as u64) as usize;
            let len = len.min(bytes.len() - to);
            bytes.copy_within(at..at + len, to);
        }
    }
}

/// A copy with the payloads, headers' lengths or encodings of some blocks changed, all checksums right: SCHEMA, stacks, index and all.
pub fn with_changed_payloads(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let segment = Segment::walk(Box::new(bytes.to_vec())).unwrap();
    let blocks = segment.blocks.len() as u64;
    let chosen: Vec<usize> = (0..1 + random.next(3)).map(|_| random.next(blocks) as usize).collect();
    let mut out = Vec::new();
    for (number, block) in segment.blocks.iter().enumerate() {
        let stored = segment.read_stored(block).unwrap();
        if !chosen.contains(&number) {
            out.extend(block.header.encode());
            out.extend(stored);
            continue;
        }
        let mut payload = decompress(block.header.codec, stored, block.header.raw_len as usize).unwrap().to_vec();
        (0..1 + random.next(3)).for_each(|_| one(&mut payload, random));
        let header = BlockHeader { codec: Codec::None as u8, ..block.header };
        let mut block = Block::new(header, payload, None).unwrap();
        match random.next(16) {
            0 => block.header.encoding ^= 2,
            1 => block.header.codec = 1,
            2 => block.header.raw_len = random.next(1 << 24) as u32,
            3 => block.header.rows = random.next(1 << 32) as u32,
            4 => block.header.block_type = random.next(256) as u8,
            _ => {}
        }
        out.extend(block.header.encode());
        out.extend(block.payload);
    }
    out
}
