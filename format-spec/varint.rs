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
