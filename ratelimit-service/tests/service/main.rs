//! The `tollgate` binary, driven from outside as Envoy, an operator and a crash would.

mod access;
mod accounts;
mod api;
mod cli;
mod clickhouse;
mod collector;
mod command_line;
mod crashes;
mod harness;
mod idempotency;
mod ingress;
mod invoices;
mod leases;
mod limits;
mod operate;
mod prices;
mod receiver;
mod reload;
mod replicas;
mod reservations;
mod rest;
mod tls;
mod usage;
mod webhooks;
