//! No tenant gets at what is another one's or the operator's: through its handle, and in PostgreSQL past it, too.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use tollgate::accounts::{
    Accounts, AccountsError, ApiKey, Begun, Budget, Invoice, LimitOverrides, Page, Plan, PriceRow, Tenant,
    WebhookEndpoint,
};

use crate::engines::Engine;
use crate::records::{budget, by, invoice, key, make_tenants, new_key, overrides, plan, price, tenant, webhook};

/// Something of every kind, for acme, globex and the operator.
async fn fill(accounts: &Accounts) {
    make_tenants(accounts, &["acme", "globex"]).await;
    accounts.create(&by(2), "pro", plan()).await.unwrap();
    for (number, tenant) in [(1, Some("acme")), (2, Some("globex")), (3, None)] {
        let new_key = new_key(number);
        accounts.create(&by(2), &new_key.id, key(tenant, &new_key)).await.unwrap();
        accounts.note_use(&new_key.id, 5).await.unwrap();
        let name = tenant.unwrap_or("operator");
        accounts.create(&by(2), &format!("w-{name}"), webhook(tenant)).await.unwrap();
        accounts.create(&by(2), &format!("p-{name}"), price(tenant)).await.unwrap();
        let Some(tenant) = tenant else { continue };
        accounts.create(&by(2), tenant, overrides()).await.unwrap();
        accounts.create(&by(2), &format!("b-{tenant}"), budget(tenant)).await.unwrap();
        accounts.create(&by(2), &format!("i-{tenant}"), invoice(tenant)).await.unwrap();
        let begun = accounts.for_tenant(tenant).begin_request(&format!("key of {tenant}"), "k", "h", 5).await;
        assert_eq!(begun, Ok(Begun::New));
    }
    assert!(accounts.try_lead("invoices", "replica 1", 1, 1000).await.unwrap());
}

async fn ids<T: tollgate::accounts::Kind>(accounts: &Accounts) -> Vec<String> {
    let all = accounts.all::<T>().await.unwrap();
    all.into_iter().map(|record| record.id).collect()
}

#[tokio::test]
async fn a_tenants_handle_sees_and_changes_what_is_its_own_alone() {
    for engine in Engine::all().await {
        let accounts = engine.open().await;
        fill(&accounts).await;
        let acme = accounts.for_tenant("acme");
        let (own, others) = (new_key(1), new_key(2));
        assert_eq!(ids::<Tenant>(&acme).await, ["acme"]);
        assert_eq!(ids::<Plan>(&acme).await, [""; 0]);
        assert_eq!(ids::<LimitOverrides>(&acme).await, ["acme"]);
        assert_eq!(ids::<Budget>(&acme).await, ["b-acme"]);
        assert_eq!(ids::<ApiKey>(&acme).await, [own.id.as_str()]);
        assert_eq!(ids::<WebhookEndpoint>(&acme).await, ["w-acme"]);
        assert_eq!(ids::<PriceRow>(&acme).await, ["p-acme"]);
        assert_eq!(ids::<Invoice>(&acme).await, ["i-acme"]);
        let page = Page { tenant: Some("globex"), ..Page::default() };
        assert_eq!(acme.list::<Budget>(&page).await, Ok(vec![]));
        assert_eq!(acme.last_uses("", "~").await, Ok(vec![(own.id.clone(), 5)]));
        for changes in [acme.changes_since(0, 100).await.unwrap(), acme.changes_before(None, None, 100).await.unwrap()]
        {
            assert!(!changes.is_empty() && changes.iter().all(|change| change.tenant.as_deref() == Some("acme")));
        }

        let not_found = |id: &str| Err(AccountsError::NotFound { kind: "budget", id: id.to_owned() });
        assert_eq!(acme.get::<Budget>("b-globex").await, Ok(None));
        assert_eq!(acme.update(&by(3), "b-globex", 1, budget("acme")).await.map(drop), not_found("b-globex"));
        assert_eq!(acme.delete::<Budget>(&by(3), "b-globex", 1).await, not_found("b-globex"));
        let out_of_scope = Err(AccountsError::OutOfScope);
        assert_eq!(acme.update(&by(3), "b-globex", 1, budget("globex")).await.map(drop), out_of_scope);
        assert_eq!(acme.update(&by(3), "b-acme", 1, budget("globex")).await.map(drop), out_of_scope);
        assert_eq!(acme.create(&by(3), "b", budget("globex")).await.map(drop), out_of_scope);
        assert_eq!(acme.create(&by(3), "globex", tenant()).await.map(drop), out_of_scope);
        assert_eq!(acme.create(&by(3), "plan", plan()).await.map(drop), out_of_scope);
        assert_eq!(acme.create(&by(3), "p", price(None)).await.map(drop), out_of_scope);
        assert_eq!(acme.create(&by(3), "w", webhook(None)).await.map(drop), out_of_scope);
        assert_eq!(acme.try_lead("invoices", "me", 5000, 1).await.map(drop), out_of_scope);
        acme.note_use(&others.id, 900_000).await.unwrap();
        assert_eq!(accounts.last_uses(&others.id, &others.id).await, Ok(vec![(others.id.clone(), 5)]));

        acme.update(&by(4), "b-acme", 1, budget("acme")).await.unwrap();
        acme.delete::<Budget>(&by(4), "b-acme", 2).await.unwrap();
        acme.create(&by(4), "b2", budget("acme")).await.unwrap();
        assert_eq!(ids::<Budget>(&accounts).await, ["b-globex", "b2"]);
        assert_eq!(ids::<Tenant>(&acme.for_tenant("acme")).await, ["acme"]);
        let escaped = acme.for_tenant("globex");
        assert_eq!((ids::<Tenant>(&escaped).await, ids::<Plan>(&escaped).await), (vec![], vec![]));
        assert_eq!(escaped.create(&by(5), "b3", budget("globex")).await.map(drop), out_of_scope);
        assert!(accounts.for_tenant("ACME").get::<Tenant>("acme").await.unwrap().is_none());
        assert_eq!(ids::<Tenant>(&accounts.for_tenant("' OR '1'='1")).await, [""; 0]);
    }
}

/// The tables whose rows are tenants', and one of their columns that could be changed.
const TABLES: [(&str, &str); 10] = [
    ("tenants", "document"),
    ("limit_overrides", "document"),
    ("budgets", "document"),
    ("api_keys", "hash"),
    ("api_key_uses", "at_ms"),
    ("webhook_endpoints", "secret"),
    ("prices", "document"),
    ("invoices", "content"),
    ("audit", "became"),
    ("idempotency_keys", "body"),
];

/// A connection as the service's own user, past the service.
async fn connect(url: &str, role: &str, tenant: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let told = "SELECT set_config('tollgate.role', $1, false), set_config('tollgate.tenant', $2, false)";
    connection.execute(sqlx::query(told).bind(role).bind(tenant)).await.unwrap();
    connection
}

async fn count(connection: &mut PgConnection, table: &str, condition: &str) -> i64 {
    let count = format!("SELECT count(*) FROM {table} WHERE {condition}");
    sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn postgres_itself_keeps_tenants_apart() {
    let engine = Engine::postgres().await;
    let Engine::Postgres(_, url) = &engine else { unreachable!() };
    let accounts = engine.open().await;
    fill(&accounts).await;
    let mut acme = connect(url, "tenant", "acme").await;
    for (table, column) in TABLES {
        assert!(count(&mut acme, table, "tenant = 'acme'").await > 0, "{table}");
        assert_eq!(count(&mut acme, table, "tenant IS DISTINCT FROM 'acme'").await, 0, "{table}");
        let others = "tenant IS DISTINCT FROM 'acme'";
        let steal = format!("UPDATE {table} SET tenant = 'acme' WHERE {others}");
        let spoil = format!("UPDATE {table} SET {column} = {column} WHERE {others}");
        let delete = format!("DELETE FROM {table} WHERE {others}");
        for statement in [steal, spoil, delete] {
            match acme.execute(AssertSqlSafe(statement.clone())).await {
                Ok(done) => assert_eq!(done.rows_affected(), 0, "{statement}"),
                Err(refused) => assert!(table == "audit" && refused.to_string().contains("append-only"), "{refused}"),
            }
        }
        let columns: Vec<String> =
            sqlx::query_scalar("SELECT column_name::text FROM information_schema.columns WHERE table_name = $1")
                .bind(table)
                .fetch_all(&mut acme)
                .await
                .unwrap();
        // Its own row again, as another's and as the operator's.
        for (tenant, id) in [("'globex'", "'new'"), ("NULL", "'new'")] {
            let copied = columns.iter().map(|column| match column.as_str() {
                "tenant" => tenant,
                "id" | "name" => id,
                "revision" => "1000000",
                other => other,
            });
            let copied: Vec<_> = copied.collect();
            let insert = format!(
                "INSERT INTO {table} ({}) SELECT {} FROM {table} LIMIT 1",
                columns.join(", "),
                copied.join(", ")
            );
            let refused = acme.execute(AssertSqlSafe(insert)).await.unwrap_err().to_string();
            assert!(refused.contains("violates row-level security policy"), "{table}: {refused}");
        }
    }
    for table in ["plans", "leaders"] {
        assert_eq!(count(&mut acme, table, "true").await, 0, "{table}");
    }
    let lead = "INSERT INTO leaders (name, holder, until_ms) VALUES ('x', 'acme', 1)";
    assert!(acme.execute(lead).await.unwrap_err().to_string().contains("row-level security"));
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_nonsense_sees_nothing() {
    let engine = Engine::postgres().await;
    let Engine::Postgres(postgres, url) = &engine else { unreachable!() };
    let accounts = engine.open().await;
    fill(&accounts).await;
    let nothing = PgConnection::connect(url).await.unwrap();
    let roles = [("", "acme"), ("Operator", ""), ("tenant", ""), ("tenant", "%")];
    let mut connections = vec![nothing];
    for (role, tenant) in roles {
        connections.push(connect(url, role, tenant).await);
    }
    for connection in &mut connections {
        for (table, _) in TABLES {
            assert_eq!(count(connection, table, "true").await, 0, "{table}");
        }
        // The owner is bound, too, unless it takes the policies away.
        assert_eq!(connection.execute("DELETE FROM tenants").await.unwrap().rows_affected(), 0);
    }
    let mut operator = connect(url, "operator", "").await;
    assert_eq!(count(&mut operator, "tenants", "true").await, 2);
    // The tables that this test knows are those that there are.
    let mut superuser = PgConnection::connect(&postgres.superuser_url("accounts")).await.unwrap();
    let unguarded = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace \
                     AND NOT (relrowsecurity AND relforcerowsecurity) ORDER BY 1";
    let unguarded: Vec<String> = sqlx::query_scalar(unguarded).fetch_all(&mut superuser).await.unwrap();
    assert_eq!(unguarded, ["_sqlx_migrations", "revision"]);
}
