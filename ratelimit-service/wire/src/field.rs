//! Fields of messages that are written in place: messages made of many small pieces take most of the time.

use prost::encoding::{WireType, encode_varint, encoded_len_varint};

/// Numbers below this take one byte, as nearly all do that stand in a message: keys and lengths.
const ONE_BYTE: u64 = 0x80;

/// Appends a field of this length-delimited content: a text, or an encoded message.
pub(crate) fn append(number: u32, content: &[u8], to: &mut Vec<u8>) {
    begin(number, content.len(), to);
    to.extend_from_slice(content);
}

/// Appends what comes before a field's length-delimited content of so many bytes.
pub(crate) fn begin(number: u32, length: usize, to: &mut Vec<u8>) {
    key(number, WireType::LengthDelimited, to);
    varint(to_u64(length), to);
}

/// Appends a field with a number.
pub(crate) fn append_varint(number: u32, value: u64, to: &mut Vec<u8>) {
    key(number, WireType::Varint, to);
    varint(value, to);
}

/// Appends a field with a number of a fixed size.
pub(crate) fn append_fixed64(number: u32, value: u64, to: &mut Vec<u8>) {
    key(number, WireType::SixtyFourBit, to);
    to.extend_from_slice(&value.to_le_bytes());
}

/// Appends a message of two length-delimited fields, numbered 1 and 2.
pub(crate) fn append_pair(number: u32, first: &[u8], second: &[u8], to: &mut Vec<u8>) {
    begin(number, length(1, first.len()) + length(2, second.len()), to);
    append(1, first, to);
    append(2, second, to);
}

/// How many bytes a field takes of length-delimited content of so many bytes.
pub(crate) fn length(number: u32, content: usize) -> usize {
    varint_length(key_of(number, WireType::LengthDelimited)) + varint_length(to_u64(content)) + content
}

/// How many bytes a field with this number in it takes.
pub(crate) fn varint_field_length(number: u32, value: u64) -> usize {
    varint_length(key_of(number, WireType::Varint)) + varint_length(value)
}

#[inline]
fn key(number: u32, wire_type: WireType, to: &mut Vec<u8>) {
    varint(key_of(number, wire_type), to);
}

fn key_of(number: u32, wire_type: WireType) -> u64 {
    (u64::from(number) << 3) | wire_type as u64
}

#[inline]
fn varint(value: u64, to: &mut Vec<u8>) {
    match u8::try_from(value) {
        Ok(byte) if value < ONE_BYTE => to.push(byte),
        _ => encode_varint(value, to),
    }
}

#[inline]
fn varint_length(value: u64) -> usize {
    if value < ONE_BYTE { 1 } else { encoded_len_varint(value) }
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
