//! What a worker tells when it is done with a lease, among its events.

use super::attribute::{self, Attribute};
use super::attributes::{Attributes, Reader, invalid};
use super::{InvalidEvent, Problem, encode_record};
use crate::admission::{Lease, MAX_LEASED_CALLS};
use crate::proto::opentelemetry::proto::logs::v1::LogRecord;

/// The name of the log record by which calls are given back that a lease was for.
pub const LEASE_RETURNED_EVENT_NAME: &str = "tollgate.lease.returned";

/// A lease that no further call goes on by. Those from the `used`th on never will have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseReturned {
    /// The lease's.
    pub id: String,
    /// Who has it.
    pub tenant: String,
    /// The plan's name; empty where the calls named none.
    pub tier: String,
    /// The model asked for.
    pub model: Option<String>,
    /// The API called.
    pub api: Option<String>,
    /// The callers' key.
    pub key: Option<String>,
    /// How many calls it was for.
    pub calls: u32,
    /// How many went on by it.
    pub used: u32,
}

impl LeaseReturned {
    /// The encoded log record that carries it.
    pub fn encode(&self, now_ms: u64) -> Vec<u8> {
        let mut attributes = Attributes::new();
        attributes.text(attribute::LEASE_ID, Some(&self.id));
        attributes.text(attribute::TENANT, Some(&self.tenant));
        attributes.text(attribute::TIER, Some(self.tier.as_str()).filter(|tier| !tier.is_empty()));
        attributes.text(attribute::REQUEST_MODEL, self.model.as_deref());
        attributes.text(attribute::API, self.api.as_deref());
        attributes.text(attribute::KEY, self.key.as_deref());
        attributes.count(attribute::LEASE_CALLS, Some(self.calls.into()));
        attributes.count(attribute::LEASE_USED, Some(self.used.into()));
        encode_record(LEASE_RETURNED_EVENT_NAME, now_ms, &attributes)
    }

    /// Reads a log record of this name; `None` for one of another.
    ///
    /// # Errors
    /// When the lease or the tenant is missing, or a number is out of range.
    pub fn read(record: &LogRecord) -> Option<Result<LeaseReturned, InvalidEvent>> {
        (record.event_name == LEASE_RETURNED_EVENT_NAME).then(|| {
            let from = Reader::new(&record.attributes);
            let calls = |attribute| {
                let calls = from.count(attribute)?.unwrap_or(0);
                u32::try_from(calls).ok().filter(|calls| *calls <= MAX_LEASED_CALLS).ok_or_else(|| invalid(attribute))
            };
            let required = |attribute: Attribute| {
                let missing = InvalidEvent { attribute: attribute.name, problem: Problem::Missing };
                from.name(attribute)?.ok_or(missing)
            };
            let id = required(attribute::LEASE_ID)?;
            Ok(LeaseReturned {
                id: Lease::id_of(&id).filter(|whole| *whole == id).ok_or_else(|| invalid(attribute::LEASE_ID))?,
                tenant: required(attribute::TENANT)?,
                tier: from.name(attribute::TIER)?.unwrap_or_default(),
                model: from.text(attribute::REQUEST_MODEL)?,
                api: from.text(attribute::API)?,
                key: from.name(attribute::KEY)?,
                calls: calls(attribute::LEASE_CALLS)?,
                used: calls(attribute::LEASE_USED)?,
            })
        })
    }

    /// The reservations that are given back.
    pub fn unused_ids(&self) -> Vec<String> {
        (self.used..self.calls).map(|index| Lease::call_id(&self.id, index)).collect()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn returned() -> LeaseReturned {
        LeaseReturned {
            id: Lease::id_of("019ac0de-1234-7abc-8def-0123456789ab").unwrap(),
            tenant: "acme".into(),
            tier: String::new(),
            model: Some("gpt-4o".into()),
            api: None,
            key: Some("ci".into()),
            calls: 70,
            used: 68,
        }
    }

    #[test]
    fn it_reads_back_and_other_records_are_none() {
        let record = LogRecord::decode(returned().encode(7).as_slice()).unwrap();
        assert_eq!(LeaseReturned::read(&record), Some(Ok(returned())));
        assert_eq!(returned().unused_ids().len(), 2);
        assert_eq!(LeaseReturned::read(&LogRecord::default()), None);
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let refused = |change: &dyn Fn(&mut LeaseReturned)| {
            let mut returned = returned();
            change(&mut returned);
            let record = LogRecord::decode(returned.encode(7).as_slice()).unwrap();
            LeaseReturned::read(&record).unwrap().unwrap_err().attribute
        };
        assert_eq!(refused(&|returned| returned.id.push('0')), "tollgate.lease.id");
        assert_eq!(refused(&|returned| returned.tenant.clear()), "tollgate.tenant");
        assert_eq!(refused(&|returned| returned.calls = MAX_LEASED_CALLS + 1), "tollgate.lease.calls");
    }
}
