//! Comparing and searching bytes, several at a time.

use crate::json::in_scalar;

/// In each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = ONES << 7;

/// How many bytes the two have in common from their start.
#[inline]
pub(super) fn common_prefix(ours: &[u8], theirs: &[u8]) -> usize {
    const WIDE: usize = 32;
    let blocks = ours.as_chunks::<WIDE>().0.iter().zip(theirs.as_chunks::<WIDE>().0);
    let wide = blocks.take_while(|(ours, theirs)| ours == theirs).count() * WIDE;
    let (ours, theirs) = (ours.get(wide..).unwrap_or_default(), theirs.get(wide..).unwrap_or_default());
    let mut same = wide;
    for (ours, theirs) in ours.as_chunks::<8>().0.iter().zip(theirs.as_chunks::<8>().0) {
        let difference = u64::from_le_bytes(*ours) ^ u64::from_le_bytes(*theirs);
        if difference != 0 {
            return same + (difference.trailing_zeros() / 8) as usize;
        }
        same += 8;
    }
    let (ours, theirs) = (ours.get(same - wide..).unwrap_or_default(), theirs.get(same - wide..).unwrap_or_default());
    same + ours.iter().zip(theirs).take_while(|(ours, theirs)| ours == theirs).count()
}

/// Where the closing quote is of a string that begins here; `None` if it is not here or a control character is before it.
pub(super) fn end_of_text(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += first_special(text.get(at..)?)?;
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' if *text.get(at + 1)? >= b' ' => at += 2,
            _ => return None,
        }
    }
}

/// The first quote, backslash or control character.
fn first_special(text: &[u8]) -> Option<usize> {
    let (blocks, rest) = text.as_chunks::<8>();
    for (at, block) in blocks.iter().enumerate() {
        let special = special(u64::from_le_bytes(*block));
        if special != 0 {
            return Some(at * 8 + (special.trailing_zeros() / 8) as usize);
        }
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..b' ');
    rest.iter().position(is_special).map(|at| blocks.len() * 8 + at)
}

/// The high bit of each special byte, and perhaps of bytes above one: the lowest is right.
fn special(bytes: u64) -> u64 {
    // With this bit turned over a quote comes next to the control characters, and the two between them go away.
    let quotes = bytes ^ (ONES * 0x02);
    let backslashes = bytes ^ (ONES * 0x5c);
    let below = |bytes: u64, bound: u64| bytes.wrapping_sub(ONES * bound) & !bytes;
    (below(quotes, 0x21) | below(backslashes, 0x01)) & HIGH_BITS
}

/// The length of the number that begins here.
pub(super) fn end_of_number(number: &[u8]) -> Option<usize> {
    let begins = matches!(number.first()?, b'-' | b'0'..=b'9');
    number.iter().position(|byte| !in_scalar(byte)).filter(|_| begins)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_common_prefix_is_that_of_the_bytes(ours in "[ab]{0,90}", theirs in "[ab]{0,90}", shared in "[abc]{0,90}") {
            let (ours, theirs) = (shared.clone() + &ours, shared + &theirs);
            let expected = ours.bytes().zip(theirs.bytes()).take_while(|(ours, theirs)| ours == theirs).count();
            prop_assert_eq!(common_prefix(ours.as_bytes(), theirs.as_bytes()), expected);
        }

        #[test]
        fn the_first_special_byte_is_found(
            text in prop::collection::vec(prop_oneof![9 => 0x20..=0xffu8, 1 => any::<u8>()], 0..60),
        ) {
            let expected = text.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
            prop_assert_eq!(first_special(&text), expected);
        }
    }

    #[test]
    fn values_end_where_the_scanner_ends_them() {
        for (text, end) in [
            (&b"abc\",\"d"[..], Some(3)),
            (b"\"", Some(0)),
            (b"a\\\"b\\\\\"", Some(6)),
            (b"abc", None),
            (b"a\n\"", None),
            (b"a\\\n\"", None),
            (b"a\\", None),
            (b"", None),
        ] {
            assert_eq!(end_of_text(text), end);
        }
        for (number, end) in
            [(&b"12,"[..], Some(2)), (b"-1.5e+9}", Some(7)), (b"\"1\"", None), (b"null,", None), (b"12", None)]
        {
            assert_eq!(end_of_number(number), end);
        }
    }
}
