//! Starts and stops the real Envoy, the real service, the stand-in, real Redis and PostgreSQL servers and ClickHouse's
//! real engine.
//!
//! Invariants: everything listens on 127.0.0.1, on a free port unless told otherwise. A process that is started here
//! ends when its handle is dropped, and when this process dies. Every wait is bounded. Logs lie in the run's folder,
//! which is removed at the end unless something failed.

pub mod artifacts;
pub mod bootstrap;
pub mod certificates;
pub mod clickhouse;
pub mod envoy;
pub mod http;
pub mod ledger;
mod port;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod run_dir;
pub mod service;
pub mod stack;
pub mod stores;
pub mod upload;
pub mod wait;

use serde_json::Value;

/// Merges `patch` into `target` as JSON merge patches do (RFC 7396): objects key by key, null removes, all else replaces.
pub fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, change) in patch {
                if change.is_null() {
                    target.remove(key);
                } else {
                    merge(target.entry(key).or_insert(Value::Null), change);
                }
            }
        }
        (target, Value::Object(patch)) => {
            *target = Value::Object(serde_json::Map::new());
            merge(target, &Value::Object(patch.clone()));
        }
        (target, patch) => *target = patch.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_replaces_removes_and_adds() {
        let mut target = json!({"kept": 1, "gone": 2, "inner": {"kept": 3, "list": [4]}, "text": "t"});
        merge(
            &mut target,
            &json!({"gone": null, "inner": {"list": [5, 6]}, "text": {"now": {"deep": 7, "not": null}}}),
        );
        assert_eq!(target, json!({"kept": 1, "inner": {"kept": 3, "list": [5, 6]}, "text": {"now": {"deep": 7}}}));
    }
}
