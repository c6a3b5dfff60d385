//! What holds for PostgreSQL: replicas, lost connections, and who may be logged in.

use std::time::Duration;

use tollgate::accounts::{Accounts, AccountsSettings, PostgresSettings, Tenant};
use tollgate_e2e::harness::postgres::Postgres;
use tollgate_e2e::harness::wait::{PATIENCE, eventually, patiently};

use crate::engines::{Engine, postgres_settings};
use crate::records::{by, make_tenants, tenant};

async fn refused(settings: PostgresSettings) -> String {
    let opened = Accounts::open(&AccountsSettings::Postgres(Box::new(settings))).await;
    format!("{:#}", opened.err().unwrap())
}

#[tokio::test]
async fn a_replica_is_told_of_anothers_change() {
    let engine = Engine::postgres().await;
    let (one, other) = (engine.open().await, engine.open().await);
    for revision in 0..5_u64 {
        let waiting = tokio::spawn({
            let other = other.clone();
            async move { other.wait_for_change(revision).await }
        });
        make_tenants(&one, &[&format!("t{revision}")]).await;
        assert_eq!(patiently("word of a change", waiting).await.unwrap().unwrap(), revision + 1);
    }
}

#[tokio::test]
async fn a_replica_that_lost_its_connection_misses_no_change() {
    let engine = Engine::postgres().await;
    let Engine::Postgres(postgres, _) = &engine else { unreachable!() };
    let (one, other) = (engine.open().await, engine.open().await);
    make_tenants(&one, &["before"]).await;
    assert_eq!(patiently("word of a change", other.wait_for_change(0)).await.unwrap(), 1);
    for revision in 1..4_u64 {
        // Those that listen are the ones whose last statement was that: who was told is among them.
        let cut = "DO $$ BEGIN \
                   IF (SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%') = 0 \
                   THEN RAISE EXCEPTION 'nobody listens'; END IF; END $$";
        postgres.execute("accounts", cut).await.unwrap();
        make_tenants(&one, &[&format!("t{revision}")]).await;
        let told = patiently("word of a change", other.wait_for_change(revision)).await.unwrap();
        assert_eq!(told, revision + 1);
    }
}

#[tokio::test]
async fn a_server_that_comes_back_is_used_again_and_changes_meanwhile_are_told() {
    let mut engine = Engine::postgres().await;
    let (one, other) = (engine.open().await, engine.open().await);
    make_tenants(&one, &["before"]).await;
    let Engine::Postgres(postgres, _) = &mut engine else { unreachable!() };
    postgres.end().await.unwrap();
    one.ping().await.unwrap_err();
    one.create(&by(2), "lost", tenant()).await.unwrap_err();
    postgres.start_again().await.unwrap();
    let made = async || Ok(one.create(&by(3), "after", tenant()).await?);
    eventually("a change", PATIENCE, made).await.unwrap();
    assert_eq!(patiently("word of a change", other.wait_for_change(1)).await.unwrap(), 2);
    assert!(other.get::<Tenant>("lost").await.unwrap().is_none());
}

#[tokio::test]
async fn whom_row_level_security_does_not_bind_is_refused() {
    let postgres = Postgres::start().await.unwrap();
    let url = postgres.database("accounts").await.unwrap();
    let by_superuser = refused(postgres_settings(&postgres.superuser_url("accounts"))).await;
    assert!(by_superuser.contains("row-level security does not bind user postgres"), "{by_superuser}");
    postgres.execute("accounts", "ALTER ROLE tollgate BYPASSRLS").await.unwrap();
    let bypassing = refused(postgres_settings(&url)).await;
    assert!(bypassing.contains("use one without SUPERUSER and BYPASSRLS"), "{bypassing}");
    let wrong = refused(postgres_settings(&url.replace("of-a-test", "s3cret"))).await;
    assert!(wrong.contains("cannot connect") && !wrong.contains("s3cret"), "{wrong}");
}

#[tokio::test]
async fn tables_of_a_later_release_are_refused() {
    let engine = Engine::postgres().await;
    engine.open().await.close().await;
    let Engine::Postgres(postgres, url) = &engine else { unreachable!() };
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'later', true, '', 0)";
    postgres.execute("accounts", later).await.unwrap();
    let later = refused(postgres_settings(url)).await;
    assert!(later.contains("of version 9999, made by a later release"), "{later}");
}

#[tokio::test]
async fn replicas_that_start_at_once_bring_the_tables_up_to_date_together() {
    let engine = Engine::postgres().await;
    let all = futures_util::future::join_all((0..4).map(|_| engine.open())).await;
    make_tenants(&all[0], &["acme"]).await;
    for accounts in &all {
        assert!(accounts.get::<Tenant>("acme").await.unwrap().is_some());
    }
}

#[tokio::test]
async fn with_authorities_the_server_has_to_prove_itself() {
    let postgres = Postgres::start().await.unwrap();
    let url = postgres.database("accounts").await.unwrap();
    let other = Postgres::start().await.unwrap();
    let with = |authority: &std::path::Path| PostgresSettings {
        ca: Some(std::fs::read(authority).unwrap()),
        poll: Duration::from_secs(3600),
        ..postgres_settings(&url)
    };
    let trusted = AccountsSettings::Postgres(Box::new(with(postgres.authority())));
    Accounts::open(&trusted).await.unwrap().ping().await.unwrap();
    let untrusted = refused(with(other.authority())).await;
    assert!(untrusted.contains("cannot connect") && untrusted.contains("certificate"), "{untrusted}");
}
