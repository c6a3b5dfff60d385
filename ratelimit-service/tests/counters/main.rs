//! The engines of counters: both do what the model does, and Redis's does it through what happens to it.

mod calls;
mod cluster;
mod contract;
mod engines;
mod exactness;
mod failures;
mod guarded;
mod replicas;
mod resets;
