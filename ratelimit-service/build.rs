//! A new migration is compiled in only when the crate is built again.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
