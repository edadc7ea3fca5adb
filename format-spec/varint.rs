//! LEB128 varints and zigzag, as in SPEC.md section 4: at most 10 bytes, the shortest form only.

use crate::error::{Error, Result};

/// Bytes that `value` takes as a varint (1 to 10).
#[inline]
pub fn len(value: u64) -> usize {
    // 9/64 is a little above 1/7: exact for all bit counts from 1 to 64.
    ((64 - (value | 1).leading_zeros() as usize) * 9 + 64) >> 6
}

/// Appends `value`.
#[inline]
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends all `values`: several times faster than one by one.
pub fn put_all(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = u64>) {
    const MOST: usize = 10;
    // Written here first, where there is always room: to look for room in `out` costs as much as to write.
    let mut part = [0u8; 64 * MOST];
    let mut at = 0;
    out.reserve(2 * values.len());
    for value in values {
        if at + MOST > part.len() {
            out.extend_from_slice(&part[..at]);
            at = 0;
        }
        if value < 0x80 {
            part[at] = value as u8;
            at += 1;
        } else if value < 0x4000 {
            let x = (value & 0x7f | 0x80 | value << 1 & 0x7f00) as u16;
            part[at..at + 2].copy_from_slice(&x.to_le_bytes());
            at += 2;
        } else if value < 1 << 56 {
            // Seven bits to a byte, in three steps, then the bit that says "more follows" in all but the last byte.
            let mut x = (value & 0x0fff_ffff) | (value & 0x00ff_ffff_f000_0000) << 4;
            x = (x & 0x0000_3fff_0000_3fff) | (x & 0x0fff_c000_0fff_c000) << 2;
            x = (x & 0x007f_007f_007f_007f) | (x & 0x3f80_3f80_3f80_3f80) << 1;
            let len = len(value);
            x |= 0x8080_8080_8080_8080 & ((1 << (8 * (len - 1))) - 1);
            part[at..at + 8].copy_from_slice(&x.to_le_bytes());
            at += len;
        } else {
            let mut rest = value;
            while rest >= 0x80 {
                part[at] = rest as u8 | 0x80;
                rest >>= 7;
                at += 1;
            }
            part[at] = rest as u8;
            at += 1;
        }
    }
    out.extend_from_slice(&part[..at]);
}

/// Takes one varint off the front of `input`. Overlong and cut ones are errors.
#[inline]
pub fn take(input: &mut &[u8]) -> Result<u64> {
    if let [first, rest @ ..] = *input
        && *first < 0x80
    {
        *input = rest;
        return Ok(u64::from(*first));
    }
    let mut value = 0u64;
    for (i, &byte) in input.iter().take(10).enumerate() {
        if i == 9 && byte > 1 {
            return Err(Error::damaged("varint over 64 bits"));
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            if byte == 0 && i > 0 {
                return Err(Error::damaged("overlong varint"));
            }
            *input = &input[i + 1..];
            return Ok(value);
        }
    }
    Err(Error::damaged("cut varint"))
}

/// Takes `count` varints off the front of `input` and gives them to `each`: several times faster than one by one.
#[inline]
pub fn take_all(input: &mut &[u8], count: usize, mut each: impl FnMut(u64)) -> Result<()> {
    const MORE: u64 = 0x8080_8080_8080_8080;
    let mut rest = *input;
    for _ in 0..count {
        let Some((word, _)) = rest.split_first_chunk() else {
            each(take(&mut rest)?);
            continue;
        };
        let word = u64::from_le_bytes(*word);
        if word & 0x80 == 0 {
            each(word & 0x7f);
            rest = &rest[1..];
            continue;
        }
        let ends = !word & MORE;
        if ends == 0 {
            each(take(&mut rest)?);
            continue;
        }
        let bits = ends.trailing_zeros() + 1;
        if word >> (bits - 8) & 0xff == 0 {
            return Err(Error::damaged("overlong varint"));
        }
        // The bytes up to the end, without the bits that say "more follows", put together in three steps.
        let mut x = word & !MORE & (u64::MAX >> (64 - bits));
        x = (x & 0x007f_007f_007f_007f) | (x & 0x7f00_7f00_7f00_7f00) >> 1;
        x = (x & 0x0000_3fff_0000_3fff) | (x & 0x3fff_0000_3fff_0000) >> 2;
        x = (x & 0x0fff_ffff) | (x & 0x0fff_ffff_0000_0000) >> 4;
        each(x);
        rest = &rest[bits as usize / 8..];
    }
    *input = rest;
    Ok(())
}

/// Maps small negative and positive numbers to small unsigned ones.
#[inline]
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Inverse of [`zigzag`].
#[inline]
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            prop_assert_eq!(bytes.len(), len(value));
            let mut input = &bytes[..];
            prop_assert_eq!(take(&mut input).unwrap(), value);
            prop_assert!(input.is_empty());
            prop_assert_eq!(unzigzag(zigzag(value as i64)), value as i64);
        }

        #[test]
        fn all_at_once(values: Vec<(u64, u8)>) {
            let values: Vec<u64> = values.iter().map(|(v, shift)| v >> (shift & 63)).collect();
            let (mut one_by_one, mut all) = (vec![7], vec![7]);
            values.iter().for_each(|v| put(&mut one_by_one, *v));
            put_all(&mut all, values.iter().copied());
            prop_assert_eq!(&one_by_one, &all);
            all.extend([9, 9]);
            let (mut input, mut taken) = (&all[1..], Vec::new());
            take_all(&mut input, values.len(), |v| taken.push(v)).unwrap();
            prop_assert_eq!(taken, values);
            prop_assert_eq!(input, &[9, 9]);
        }

        #[test]
        fn the_same_from_any_bytes(bytes: Vec<u8>, count in 0usize..40) {
            let (mut one, mut all) = (&bytes[..], &bytes[..]);
            let (mut by_one, mut by_all) = (Vec::new(), Vec::new());
            let ended = (0..count).try_for_each(|_| take(&mut one).map(|v| by_one.push(v))).is_ok();
            prop_assert_eq!(take_all(&mut all, count, |v| by_all.push(v)).is_ok(), ended);
            prop_assert_eq!(by_one, by_all);
            prop_assert!(!ended || one == all);
        }
    }

    #[test]
    fn lengths_at_every_bit() {
        for bit in 0..64 {
            for value in [1u64 << bit, (1u64 << bit) - 1] {
                let mut bytes = Vec::new();
                put(&mut bytes, value);
                assert_eq!(bytes.len(), len(value), "{value}");
            }
        }
    }

    #[test]
    fn hostile_varints() {
        assert!(take(&mut &[0x80u8, 0x00][..]).is_err());
        assert!(take(&mut &[0x80u8; 10][..]).is_err());
        assert!(take(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..]).is_err());
        assert!(take(&mut &[][..]).is_err());
    }
}
