//! The client's program, driven as people and shells drive it: against a server of the test's own, with real
//! shells and real repositories.
#![cfg(test)]

mod answers;
mod check;
mod events;
mod exec;
mod fallback;
mod others;
mod shells;
mod socket;
mod start;
mod support;
