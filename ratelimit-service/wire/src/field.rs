//! Fields of messages that are written in place: messages made of many small pieces take most of the time.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// Appends a field of this length-delimited content: a text, or an encoded message.
pub(crate) fn append(number: u32, content: &[u8], to: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, to);
    encode_varint(to_u64(content.len()), to);
    to.extend_from_slice(content);
}

/// Appends a field with a number.
pub(crate) fn append_varint(number: u32, value: u64, to: &mut Vec<u8>) {
    encode_key(number, WireType::Varint, to);
    encode_varint(value, to);
}

/// Appends a message of two length-delimited fields, numbered 1 and 2.
pub(crate) fn append_pair(number: u32, first: &[u8], second: &[u8], to: &mut Vec<u8>) {
    let length = |number, content: &[u8]| key_len(number) + encoded_len_varint(to_u64(content.len())) + content.len();
    encode_key(number, WireType::LengthDelimited, to);
    encode_varint(to_u64(length(1, first) + length(2, second)), to);
    append(1, first, to);
    append(2, second, to);
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
