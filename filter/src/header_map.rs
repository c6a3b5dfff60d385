//! Headers where they lie: Envoy hands a map over as one piece of memory, and nothing of it is taken apart before it is asked for.
//! A string for each name and each value, as the SDK makes them, took more time than all that is looked up in them.

use log::error;
use proxy_wasm::hostcalls;
use proxy_wasm::types::MapType;
use tollgate_flow::{HeaderEdit, Headers, Request};

/// So many changes of headers are made by setting the whole map: each by itself would be a call into the host.
const MANY_EDITS: usize = 4;

/// The bytes of a size, and of the number of headers.
const SIZE_BYTES: usize = 4;

/// All headers at once: a call into the host costs more than to copy them.
///
/// As proxy-wasm lays them out: their number; of each the size of its name and of its value; then all names and values, each with
/// a zero byte behind it. What does not fit that is no header.
pub(crate) struct HeaderMap(Vec<u8>);

/// The SDK's own functions give a map as strings only, or take it so.
#[allow(unsafe_code)]
mod host {
    use std::ptr::null_mut;

    use proxy_wasm::types::MapType;

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        fn proxy_get_header_map_pairs(map: MapType, data: *mut *mut u8, size: *mut usize) -> u32;
        fn proxy_set_header_map_pairs(map: MapType, data: *const u8, size: usize) -> u32;
    }

    /// The map as it is laid out; empty where there is none.
    pub(super) fn get(map: MapType) -> Vec<u8> {
        let (mut data, mut size) = (null_mut(), 0);
        // SAFETY: both places are ours until the call returns.
        let status = unsafe { proxy_get_header_map_pairs(map, &raw mut data, &raw mut size) };
        if status != 0 || data.is_null() {
            return Vec::new();
        }
        // SAFETY: the host has got this memory from `proxy_on_memory_allocate`, which the SDK serves with a vector of this
        // capacity that it forgets, and has filled all of it.
        unsafe { Vec::from_raw_parts(data, size, size) }
    }

    /// Whether the host took it.
    ///
    /// # Errors
    /// The host's status.
    pub(super) fn set(map: MapType, laid_out: &[u8]) -> Result<(), u32> {
        // SAFETY: the host reads these bytes, and only until the call returns.
        match unsafe { proxy_set_header_map_pairs(map, laid_out.as_ptr(), laid_out.len()) } {
            0 => Ok(()),
            status => Err(status),
        }
    }
}

impl HeaderMap {
    pub(crate) fn read(map: MapType) -> HeaderMap {
        HeaderMap(host::get(map))
    }

    /// Changes the map that this was read from.
    pub(crate) fn edit(&self, map: MapType, edits: &[HeaderEdit]) {
        if edits.len() < MANY_EDITS {
            return edit(map, edits);
        }
        let is_edited = |name: &[u8]| edits.iter().any(|(edited, _)| is_same(edited.as_bytes(), name));
        let kept = self.pairs().filter(|(name, _)| !is_edited(name));
        let set = edits.iter().filter_map(|(name, value)| Some((name.as_bytes(), value.as_ref()?.as_bytes())));
        // Chosen once, and laid out in two passes.
        let mut headers = Vec::with_capacity(self.count().saturating_add(edits.len()));
        headers.extend(kept);
        headers.extend(set);
        if let Err(status) = host::set(map, &lay_out(&headers)) {
            error!("{map:?}: it can't be changed: {status}");
        }
    }

    /// How many headers there are said to be: at most as many as have room.
    fn count(&self) -> usize {
        let said = self.0.first_chunk().map_or(0, |count| u32::from_le_bytes(*count) as usize);
        said.min(self.0.len() / (2 * SIZE_BYTES))
    }

    fn pairs(&self) -> Pairs<'_> {
        let sizes_bytes = self.count().saturating_mul(2 * SIZE_BYTES);
        let rest = self.0.get(SIZE_BYTES..).unwrap_or_default();
        let (sizes, texts) = rest.split_at_checked(sizes_bytes).unwrap_or_default();
        Pairs { sizes, texts }
    }
}

/// Whether two names are the same. Those of one length differ at their ends more often than at their beginnings.
fn is_same(name: &[u8], other: &[u8]) -> bool {
    name.len() == other.len() && name.last() == other.last() && name == other
}

/// The headers of a map that are still to come.
struct Pairs<'a> {
    sizes: &'a [u8],
    texts: &'a [u8],
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (size, sizes) = self.sizes.split_first_chunk()?;
        let (value_size, sizes) = sizes.split_first_chunk()?;
        let (name, texts) = self.texts.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        let (value, texts) = texts.get(1..)?.split_at_checked(u32::from_le_bytes(*value_size) as usize)?;
        *self = Pairs { sizes, texts: texts.get(1..)? };
        Some((name, value))
    }
}

/// Lays headers out as a map.
fn lay_out(headers: &[(&[u8], &[u8])]) -> Vec<u8> {
    let size = |text: &[u8]| u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
    let header_bytes = |(name, value): &(&[u8], &[u8])| name.len() + value.len() + 2 * (SIZE_BYTES + 1);
    let bytes: usize = headers.iter().map(header_bytes).sum();
    let mut map = Vec::with_capacity(SIZE_BYTES + bytes);
    map.extend_from_slice(&u32::try_from(headers.len()).unwrap_or(u32::MAX).to_le_bytes());
    for (name, value) in headers {
        map.extend_from_slice(&size(name));
        map.extend_from_slice(&size(value));
    }
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        map.extend_from_slice(text);
        map.push(0);
    }
    map
}

impl Headers for HeaderMap {
    fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.pairs().filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)))
    }

    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.pairs().filter(move |(key, _)| is_same(key, name.as_bytes())).map(|(_, value)| value)
    }
}

impl Request for HeaderMap {
    fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        hostcalls::get_property(path.to_vec()).ok().flatten()
    }
}

/// Makes few changes, one by one.
pub(crate) fn edit(map: MapType, edits: &[HeaderEdit]) {
    for (name, value) in edits {
        if let Err(status) = hostcalls::set_map_value(map, name, value.as_deref()) {
            error!("{map:?}: {name} can't be changed: {status:?}");
        }
    }
}
