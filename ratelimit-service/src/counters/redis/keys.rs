//! The names of what is kept: all keys of one tenant lie in one hash slot.

/// A tenant's keys, in the order in which the script takes them.
pub(super) struct TenantKeys(pub(super) [String; 4]);

impl TenantKeys {
    /// `prefix` has no brace.
    pub(super) fn new(prefix: &str, tenant: &str) -> TenantKeys {
        let tag = tag(tenant);
        TenantKeys(["counters", "book", "due", "offers"].map(|part| format!("{prefix}:{{{tag}}}:{part}")))
    }
}

/// When the tenant was reset last.
pub(super) fn reset_key(prefix: &str, tenant: &str) -> String {
    format!("{prefix}:{{{}}}:reset", tag(tenant))
}

/// How many slots a cluster has.
pub(super) const HASH_SLOTS: usize = 16_384;

/// How many parts the index of due tenants has.
pub(super) const INDEX_SHARDS: usize = 16;

/// The shard of the index that a tenant is in: the same in all replicas.
pub(super) fn index_shard(tenant: &str) -> usize {
    usize::from(crc16(tenant.as_bytes())) % INDEX_SHARDS
}

/// The hash slot of a tenant's keys, of [`HASH_SLOTS`].
pub(super) fn slot(tenant: &str) -> usize {
    usize::from(crc16(tag(tenant).as_bytes())) % HASH_SLOTS
}

/// The hash slot of a shard of the index.
pub(super) fn index_slot(shard: usize) -> usize {
    usize::from(crc16(shard.to_string().as_bytes())) % HASH_SLOTS
}

/// CRC-16/XMODEM, by which a cluster spreads keys.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let begun = crc ^ (u16::from(*byte) << 8);
        (0..8).fold(begun, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    })
}

/// The key of a shard of the index.
pub(super) fn index_key(prefix: &str, shard: usize) -> String {
    format!("{prefix}:due:{{{shard}}}")
}

/// The tenant's name as a hash tag: never empty, without a brace, and different for each tenant.
fn tag(tenant: &str) -> String {
    match tenant {
        "" => "%".to_owned(),
        _ => tenant.replace('%', "%25").replace('{', "%7B").replace('}', "%7D"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot("a"), 15_495);
    }

    #[test]
    fn no_tenant_shares_a_tag_or_breaks_it() {
        let tenants = ["", "%", "%25", "a", "{", "}", "{a}", "a}b{c", "%7B", "ä b:c"];
        let tags: BTreeSet<_> = tenants.iter().map(|tenant| tag(tenant)).collect();
        assert_eq!(tags.len(), tenants.len());
        assert!(tags.iter().all(|tag| !tag.is_empty() && !tag.contains(['{', '}'])));
        assert_eq!(TenantKeys::new("tollgate", "a}").0[1], "tollgate:{a%7D}:book");
    }
}
