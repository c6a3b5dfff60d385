//! Sinks on the real spool: one that is down holds up no other, and neither misses anything over restarts.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tollgate::metrics::Metrics;
use tollgate::secret::Secret;
use tollgate::sinks::{AnySink, HecSettings, JsonlSettings, SinkMetrics, SinkSettings, run};
use tollgate::spool::{Lag, Spool, SpoolSettings};

use crate::receiver::{Receiver, TOKEN};
use crate::source::{PACE, entries, eventually, first_of_each, ids};

/// The spool with a sink for each of its consumers, as the service has them.
struct Service {
    spool: Arc<Spool>,
    sinks: JoinSet<()>,
}

impl Service {
    fn start(folder: &Path, url: &str) -> Service {
        let settings = [
            ("splunk", SinkSettings::SplunkHec(HecSettings::new(url, Secret::new(TOKEN)))),
            ("file", SinkSettings::Jsonl(JsonlSettings::new(folder.join("usage.jsonl")))),
        ];
        let consumers = settings.clone().map(|(name, _)| (name.to_owned(), Lag::Drop));
        let spool = SpoolSettings { folder: folder.join("spool"), max_bytes: 1 << 30 };
        let (spool, consumers) = Spool::open(&spool, &consumers, &Metrics::new().0).unwrap();
        let metrics = SinkMetrics::new(&mut Registry::default());
        let mut sinks = JoinSet::new();
        for (consumer, (name, settings)) in consumers.into_iter().zip(settings) {
            let sink: AnySink = settings.open().unwrap();
            sinks.spawn(run(consumer, sink, PACE, metrics.of(name)));
        }
        Service { spool: Arc::new(spool), sinks }
    }

    /// What is not sent stays in the spool.
    async fn stop(mut self) {
        self.sinks.shutdown().await;
        self.spool.close().await;
    }
}

#[tokio::test]
async fn a_sink_that_is_down_over_restarts_gets_all_and_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (receiver, url) = Receiver::start(&[]).await;
    receiver.has_acks.store(true, SeqCst);
    receiver.is_down.store(true, SeqCst);
    let all = entries(3000);
    let lines = || {
        let text = std::fs::read_to_string(folder.path().join("usage.jsonl")).unwrap_or_default();
        let id = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(line.get("event_id").or(line.get("id"))?.as_str()?.to_owned())
        };
        text.lines().filter_map(id).collect::<Vec<_>>()
    };
    for (round, part) in all.chunks(1000).enumerate() {
        let service = Service::start(folder.path(), &url);
        for together in part.chunks(30) {
            service.spool.append(together.to_vec().into()).await.unwrap();
        }
        let expected = (round + 1) * 1000;
        eventually("the file has them", || first_of_each(&lines()).len() == expected).await;
        assert!(receiver.events().is_empty() && receiver.requests.load(SeqCst) > round, "HEC was tried");
        service.stop().await;
    }
    receiver.is_down.store(false, SeqCst);
    let service = Service::start(folder.path(), &url);
    eventually("HEC has them", || first_of_each(&receiver.ids()).len() == all.len()).await;
    service.spool.close().await;
    service.sinks.join_all().await;
    assert_eq!(first_of_each(&receiver.ids()), ids(&all));
    assert_eq!(first_of_each(&lines()), ids(&all));
}
