//! What holds for SQLite: its file, and who else has it open.

use rusqlite::Connection;
use tollgate::accounts::{Accounts, AccountsSettings, Tenant};

use crate::engines::Engine;
use crate::records::{by, make_tenants, tenant};

fn connection(engine: &Engine) -> Connection {
    match engine.settings() {
        AccountsSettings::Sqlite(file) => Connection::open(file).unwrap(),
        AccountsSettings::Postgres(_) => unreachable!(),
    }
}

#[tokio::test]
async fn a_file_of_a_later_release_or_of_something_else_is_refused() {
    let engine = Engine::sqlite();
    engine.open().await.close().await;
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'later', true, x'', 0)";
    connection(&engine).execute(later, []).unwrap();
    let refused = format!("{:#}", Accounts::open(&engine.settings()).await.err().unwrap());
    assert!(refused.contains("accounts.db: the tables are of version 9999, made by a later release"), "{refused}");

    let engine = Engine::sqlite();
    let AccountsSettings::Sqlite(file) = engine.settings() else { unreachable!() };
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "no database, but a text that is long enough to be taken for one").unwrap();
    let refused = format!("{:#}", Accounts::open(&engine.settings()).await.err().unwrap());
    assert!(refused.contains("file is not a database"), "{refused}");
}

#[tokio::test]
async fn the_audit_log_is_never_changed() {
    let engine = Engine::sqlite();
    let accounts = engine.open().await;
    make_tenants(&accounts, &["acme"]).await;
    let connection = connection(&engine);
    for statement in ["UPDATE audit SET actor = 'mallory'", "DELETE FROM audit"] {
        let refused = connection.execute(statement, []).unwrap_err();
        assert!(refused.to_string().contains("audit is append-only"), "{refused}");
    }
}

#[tokio::test]
async fn a_change_whose_audit_record_cannot_be_kept_is_not_made() {
    let engine = Engine::sqlite();
    let accounts = engine.open().await;
    make_tenants(&accounts, &["acme"]).await;
    let connection = connection(&engine);
    let fail = "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT raise(ABORT, 'no room'); END";
    connection.execute_batch(fail).unwrap();
    let failed = accounts.update(&by(2), "acme", 1, tenant()).await.unwrap_err();
    assert!(failed.to_string().contains("no room"), "{failed}");
    accounts.create(&by(2), "globex", tenant()).await.unwrap_err();
    accounts.delete::<Tenant>(&by(2), "acme", 1).await.unwrap_err();
    connection.execute_batch("DROP TRIGGER full").unwrap();
    assert_eq!(accounts.get::<Tenant>("acme").await.unwrap().unwrap().version, 1);
    assert!(accounts.get::<Tenant>("globex").await.unwrap().is_none());
    assert_eq!(accounts.revision().await.unwrap(), 1);
    assert_eq!(accounts.update(&by(3), "acme", 1, tenant()).await.unwrap().version, 2);
}
